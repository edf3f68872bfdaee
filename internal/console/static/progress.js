// Shows launch stages as they happen. Everything else works without this file.
const list = document.getElementById("stages");
const words = {
  policy: "Image policy", image: "Image", lease: "GPU lease", create: "Create container",
  start: "Start container", verify: "Verify hardening", agent: "Agent answers",
  jupyter: "Jupyter answers", ready: "Ready", selfcheck: "Self check", memory: "Memory", failed: "Failed", stopped: "Stopped",
};
if (list && (list.dataset.state === "starting" || list.dataset.state === "running" || list.dataset.state === "stopping")) {
  const source = new EventSource(`/api/v1/workspaces/${list.dataset.workspace}/events?after=${list.dataset.after}`);
  source.addEventListener("stage", (event) => {
    const stage = JSON.parse(event.data);
    list.querySelector(".none")?.remove();
    let item = list.querySelector(`li[data-stage="${CSS.escape(stage.name)}"][data-run="${CSS.escape(stage.run)}"]`) ??
      list.querySelector(`li[data-stage="${CSS.escape(stage.name)}"].begin`);
    if (!item) {
      item = document.createElement("li");
      item.dataset.stage = stage.name;
      list.append(item);
    }
    item.dataset.run = stage.run;
    item.className = stage.status;
    item.replaceChildren();
    const what = document.createElement("span");
    what.className = "what";
    what.textContent = words[stage.name] ?? stage.name;
    const took = document.createElement("span");
    took.className = "took";
    took.textContent = stage.took_seconds ? ` ${format(stage.took_seconds)}` : "";
    item.append(what, took);
    if (stage.detail) {
      const detail = document.createElement("span");
      detail.className = "dim";
      detail.textContent = ` ${stage.detail}`;
      item.append(detail);
    }
    const settles = { ready: "starting", failed: "", stopped: "" };
    if (stage.status !== "begin" && stage.name in settles && list.dataset.state !== "settled") {
      const from = settles[stage.name];
      if (!from || list.dataset.state === from) {
        list.dataset.state = "settled";
        source.close();
        location.reload();
      }
    }
  });
}

function format(seconds) {
  return seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`;
}
