// Runs Pyodide, and calls functions of the package: JSON in, JSON out.
import { loadPyodide } from "./python/pyodide.mjs";

const beside = (name) => new URL(`python/${name}`, import.meta.url);
let call;

async function bytes(name) {
  const answer = await fetch(beside(name));
  if (!answer.ok) throw new Error(`${name}: ${answer.status}`);
  return answer.arrayBuffer();
}

async function start(archives) {
  const [python, ...contents] = await Promise.all([
    loadPyodide({ indexURL: beside("").href }),
    ...archives.map(bytes),
  ]);
  archives.forEach((name, at) => {
    const format = /\.whl$/.test(name) ? "wheel" : "zip";
    python.unpackArchive(contents[at], format, { extractDir: python.runPython("import site; site.getsitepackages()[0]") });
  });
  call = python.pyimport("specctrl.site.in_browser").call;
}

self.onmessage = async ({ data }) => {
  if (data.archives) {
    await start(data.archives).then(
      () => postMessage({ id: "ready" }),
      (error) => postMessage({ id: "ready", error: String(error.message ?? error) }),
    );
    return;
  }
  try {
    postMessage({ id: data.id, text: call(data.module, data.name, data.text) });
  } catch (error) {
    postMessage({ id: data.id, error: String(error.message ?? error) });
  }
};

postMessage({ id: "here" }); // what is posted before has nobody to take it
