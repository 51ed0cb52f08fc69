/* What computes the networks of a page (live.js): the graphics processor, by WebGPU, where a figure asks for it and the
   browser has one, else the processor. Each has a runtime of its own (study/live_runtime.py), loaded when asked. */
"use strict";

(() => {
  const live = (window.live ??= {}); // live.js fills it, before or after this
  const PROCESSOR = "processor";

  /* The runtime for this browser's graphics processor; null where it has none, or one that is only imitated, which is
     slower than the processor by itself. */
  async function ofGraphics() {
    try {
      const adapter = await navigator.gpu?.requestAdapter();
      if (!adapter || adapter.info?.isFallbackAdapter || adapter.isFallbackAdapter) return null;
      return "Suspending" in WebAssembly ? "jspi" : "asyncify";
    } catch (error) {
      return null;
    }
  }
  let graphics = null;

  /* The runtime that a figure will be computed by, of those whose size it has been told. */
  live.runtimeOf = async (figure) => {
    if (!("jspi" in figure.dataset)) return PROCESSOR;
    return (await (graphics ??= ofGraphics())) ?? PROCESSOR;
  };

  /* A runtime, ready: onnxruntime with one thread, and its files from the page's memory. */
  const begun = {};
  async function begin(name) {
    await live.load(name);
    const { ort } = window; // another runtime takes the same name
    const paths = {};
    for (const [file, text] of Object.entries(live.data[name])) {
      const type = file === "mjs" ? "text/javascript" : "application/wasm";
      paths[file] = URL.createObjectURL(new Blob([await live.unpacked(text)], { type }));
    }
    delete live.data[name];
    Object.assign(ort.env.wasm, { numThreads: 1, proxy: false, wasmPaths: paths });
    return ort;
  }

  /* A network, as a function of {name: [numbers, shape]} that returns {name: numbers}. */
  async function network(text, runtime) {
    const ort = await (begun[runtime] ??= begin(runtime));
    const providers = [runtime === PROCESSOR ? "wasm" : "webgpu"];
    const session = await ort.InferenceSession.create(await live.unpacked(text), { executionProviders: providers });
    return async (given) => {
      const feeds = {};
      for (const [name, [numbers, shape]] of Object.entries(given)) {
        const kind = numbers instanceof Int32Array ? "int32" : "float32";
        feeds[name] = new ort.Tensor(kind, numbers, shape);
      }
      const found = await session.run(feeds);
      return Object.fromEntries(session.outputNames.map((name) => [name, found[name].data]));
    };
  }

  /* Networks, {name: text}, on a runtime: `run(name, given)` computes one, and `where()` says in words what does so.
     Where the graphics processor fails, or fails the trial, an action that is given `run` and throws, the processor
     takes its place: at the start, or in the middle of what is asked. */
  live.networks = async (texts, runtime, trial) => {
    let [made, by] = [{}, null];
    const run = (name, given) => made[name](given);
    async function make(where) {
      [made, by] = [{}, where];
      for (const [name, text] of Object.entries(texts)) {
        await live.breathe();
        made[name] = await network(text, where);
      }
      if (by === PROCESSOR) texts = null; // they are not needed again
      else await trial(run);
    }
    const instead = (error) => {
      if (by === PROCESSOR) throw error;
      return make(PROCESSOR);
    };

    await make(runtime).catch(instead);
    return {
      run: (name, given) => run(name, given).catch(async (error) => {
        await instead(error);
        return run(name, given);
      }),
      where: () => {
        if (by !== PROCESSOR) return "the graphics processor";
        return runtime === PROCESSOR ? "the processor" : "the processor, as the graphics processor failed";
      },
    };
  };
})();
