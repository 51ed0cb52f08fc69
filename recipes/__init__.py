"""How each shipped network was trained: `python -m recipes train NAME --folder FOLDER`."""
