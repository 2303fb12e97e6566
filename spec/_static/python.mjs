// Python in a worker of the page. Loaded when it is first asked for; whatever it loads comes from this site.
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
      this.worker = new Worker(new URL("python-worker.mjs", import.meta.url), { type: "module" });
      this.worker.onerror = (event) => failed(new Error(event.message || "the worker did not start"));
      this.worker.onmessage = ({ data }) => {
        if (data.id === "ready") return data.error ? failed(new Error(data.error)) : done();
        const { resolve, reject } = this.answers.get(data.id);
        this.answers.delete(data.id);
        return data.error ? reject(new Error(data.error)) : resolve(JSON.parse(data.text));
      };
      this.worker.postMessage({ archives: this.archives });
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
