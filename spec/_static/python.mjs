// Python in a worker of the page. Loaded when it is first asked for; whatever it loads comes from this site.

// A worker that is started from a file has no policy but that file's own answer; from a blob it has the page's, so that
// no code that a reader runs can ask anybody but this site.
const script = new URL("python-worker.mjs", import.meta.url).href;
// It imports its script when it runs: a script that is imported before that would have to be a worker's by the policy.
const start = `import(${JSON.stringify(script)}).catch((error) => postMessage({ id: "ready", error: String(error) }));`;
const starter = new Blob([start], { type: "text/javascript" });

export class Python {
  // archives: what is unpacked into Python's path, by file name beside Pyodide.
  constructor(archives) {
    this.archives = archives;
  }

  // Start, unless it runs already; the promise fails with why it cannot.
  start() {
    this.ready ??= new Promise((done, failed) => {
      this.answers = new Map();
      this.asked = 0;
      const address = URL.createObjectURL(starter);
      this.worker = new Worker(address, { type: "module" });
      this.worker.onerror = (event) => failed(new Error(event.message || "the worker did not start"));
      this.worker.onmessage = ({ data }) => {
        if (data.id === "here") return this.worker.postMessage({ archives: this.archives });
        if (data.id === "ready") {
          URL.revokeObjectURL(address);
          return data.error ? failed(new Error(data.error)) : done();
        }
        const { resolve, reject } = this.answers.get(data.id);
        this.answers.delete(data.id);
        return data.error ? reject(new Error(data.error)) : resolve(JSON.parse(data.text));
      };
    }).catch((error) => {
      this.stop();
      throw error;
    });
    return this.ready;
  }

  // Call a function of the package: keyword arguments and answer are whatever JSON can say.
  async call(module, name, given) {
    await this.start();
    return new Promise((resolve, reject) => {
      const id = (this.asked += 1);
      this.answers.set(id, { resolve, reject });
      this.worker.postMessage({ id, module, name, text: JSON.stringify(given) });
    });
  }

  // End it, whatever it does; what waits for an answer fails.
  stop() {
    this.worker?.terminate();
    this.ready = undefined;
    const waiting = this.answers ?? new Map();
    this.answers = new Map();
    for (const { reject } of waiting.values()) reject(new Error("stopped"));
  }
}
