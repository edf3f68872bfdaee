// What a person sees of the filter, in Debian's Chromium: a token is masked in
// a notebook, in a traceback, in the terminal and in a file, and JupyterLab
// works as it did: progress bars, long outputs, completion, saving, vim.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { mkdtemp, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";

const bin = process.env.BAILEY_BIN ?? path.resolve("../../bin/bailey");
const shots = process.env.BAILEY_SCREENSHOTS;
const className = process.env.BAILEY_FILTER_CLASS ?? "notebook";
const password = "correct-horse-battery";
const token = ["eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9", "eyJzdWIiOiI4ODIxMzQ1NTAxIiwibmFtZSI6IkFkYSIsImlhdCI6MTc2MzYxMTIwMH0", "Qm9Zf3kT7xw1Lr8uVb2nYc5hJd0sGq4eAa6iMpRtXzU"].join(".");
const tail = token.slice(40);
const pieces = token.match(/.{1,17}/g); // the code that makes the token must not hold it
let dir, server, browser, page, origin, output = "";
const errors = [];
let terminal = ""; // what the browser got for the terminal: it is drawn, not written, on the page

async function freePort() {
  const s = createServer();
  await new Promise((ok) => s.listen(0, "127.0.0.1", ok));
  const { port } = s.address();
  await new Promise((ok) => s.close(ok));
  return port;
}

async function until(what, probe, ms = 60000) {
  const end = Date.now() + ms;
  for (;;) {
    const got = await probe();
    if (got) return got;
    if (Date.now() > end) {
      await shot(`failed-${what.replaceAll(/[^a-z]+/gi, "-").slice(0, 30)}`);
      throw new Error(`${what} did not happen; the server said:\n${output.slice(-4000)}`);
    }
    await new Promise((ok) => setTimeout(ok, 50));
  }
}

async function shot(name) {
  if (!shots || !page) return;
  await mkdir(shots, { recursive: true });
  await page.screenshot({ path: path.join(shots, `filter-${name}.png`) });
}

async function removeContainers() {
  const instance = dir && await readFile(path.join(dir, "state", "instance"), "utf8").catch(() => "");
  if (!instance?.trim()) return;
  const list = spawnSync("docker", ["ps", "-aq", "--filter", `label=dev.bailey.instance=${instance.trim()}`], { encoding: "utf8" });
  const ids = (list.stdout ?? "").split(/\s+/).filter(Boolean);
  if (ids.length) spawnSync("docker", ["rm", "-f", ...ids]);
}

// seen is everything that the page shows, terminals and editors included.
async function seen() {
  return page.evaluate(() => document.body.innerText + [...document.querySelectorAll(".xterm-rows > div")].map((d) => d.textContent).join("\n"));
}

// run puts code into the notebook's last cell, runs it, and waits for text.
async function run(code, want, count = 1) {
  const cell = page.locator(".jp-Notebook .jp-Cell:last-child .cm-content");
  await cell.click();
  await page.keyboard.insertText(code);
  await page.keyboard.press("Shift+Enter");
  await until(`${want} below ${code}`, async () => (await page.locator(".jp-OutputArea-output").allInnerTexts()).filter((t) => t.includes(want)).length >= count);
  await page.getByText(/Python 3 \(ipykernel\) \| Idle/).waitFor({ timeout: 60000 });
}

before(async () => {
  dir = await mkdtemp(path.join(tmpdir(), "bailey-filter-"));
  const port = await freePort();
  let metrics = port;
  while (metrics === port) metrics = await freePort();
  await writeFile(path.join(dir, "password"), `${password}\n`, { mode: 0o600 });
  server = spawn(bin, ["up", "--demo", "--state", path.join(dir, "state"), "--https", `127.0.0.1:${port}`, "--metrics", `127.0.0.1:${metrics}`, "--admin-password-file", path.join(dir, "password")]);
  for (const stream of [server.stdout, server.stderr]) stream.on("data", (b) => { output += b; });
  origin = await until("the address", () => output.match(/Open\s+(https:\/\/\S+)/)?.[1]);
  browser = await chromium.launch({
    executablePath: process.env.BAILEY_CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
  page = await (await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1280, height: 1000 } })).newPage();
  page.on("websocket", (ws) => ws.url().includes("/terminals/websocket/") && ws.on("framereceived", ({ payload }) => {
    const [kind, text] = JSON.parse(payload);
    if (kind === "stdout") terminal += text;
  }));
  page.on("pageerror", (e) => errors.push(String(e)));
  page.on("response", (r) => r.status() >= 400 && errors.push(`${r.status()} ${r.request().method()} ${r.url()}`));
  await page.goto(`${origin}/signin`);
  await page.getByLabel("Name").fill("admin");
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.waitForURL(`${origin}/workspaces`);
  await page.locator(`input[name=class][value=${className}]`).check();
  await page.getByRole("button", { name: "Launch" }).click();
  await page.getByRole("link", { name: "Open JupyterLab" }).click({ timeout: 60000 });
  await page.locator(".jp-Launcher").waitFor({ timeout: 60000 });
});

after(async () => {
  await browser?.close();
  if (server && server.exitCode === null) {
    const gone = new Promise((ok) => server.once("exit", ok));
    server.kill("SIGTERM");
    await gone;
  }
  await removeContainers();
  if (dir) await rm(dir, { recursive: true, force: true });
});

test("a notebook shows [REDACTED:jwt] where a token was printed, shown or raised", async () => {
  await page.locator(".jp-LauncherCard", { hasText: "Python 3" }).first().click();
  await page.getByText(/Python 3 \(ipykernel\) \| Idle/).waitFor({ timeout: 120000 });
  await run(`t = "".join(${JSON.stringify(pieces.toReversed())}[::-1])\nprint("Bearer " + t)`, "Bearer [REDACTED:jwt]");
  await run("t", "'[REDACTED:jwt]'");
  await run("raise ValueError(t)", "ValueError: [REDACTED:jwt]");
  await shot("notebook");
  assert.ok(!(await seen()).includes(tail), "the token is on no page");
});

test("progress bars, long outputs, HTML and completion work", async () => {
  await run("import sys, time\nfor i in range(21):\n    print(f'\\r{i*5:3d}%|{\"█\"*i:20}|', end='', flush=True); time.sleep(.02)\nprint(' done')", "100%|");
  await run("for i in range(3000): print('line', i, i*i)", "line 2999 8994001");
  await run("from IPython.display import HTML, display\nh = display(HTML('<b>before</b>'), display_id=True)\nh.update(HTML('<b>after ' + str(6*7) + '</b>'))", "after 42");
  await run("import urllib.parse as zz_module\nzz_value = 5\nzz_value * 11", "55");
  const cell = page.locator(".jp-Notebook .jp-Cell:last-child .cm-content");
  await cell.click();
  await page.keyboard.type("zz_mod");
  await page.keyboard.press("Tab");
  await until("the completion", async () => (await page.locator(".jp-Completer").allInnerTexts()).join().includes("zz_module") || (await cell.innerText()).includes("zz_module"));
  await page.keyboard.press("Escape");
  await page.keyboard.press("Control+a");
  await page.keyboard.press("Delete");
  await run("print(open('/etc/hostname').read() and 'read')", "read");
});

// What a line says after its head was printed over its tail, as JupyterLab shows it.
test("a token that is overprinted into one line is masked, and bars are not", async () => {
  await run("import sys, time\nfor i in range(31):\n    sys.stderr.write(f'\\rtraining: {i*100//30:3d}%|{\"#\"*i:30}| {i}/30 [00:00<00:00, {9.5+i/7:.2f}it/s, loss={1/(1+i):.4f}]'); sys.stderr.flush(); time.sleep(.01)\nprint('bar over')", "bar over");
  const bar = (await page.locator(".jp-Notebook .jp-Cell .jp-OutputArea-output").allInnerTexts()).find((t) => t.includes("training:"));
  assert.match(bar, /^training: 100%\|#{30}\| 30\/30 \[00:00<00:00, 13\.79it\/s, loss=0\.0323\]/, "the last state of the bar, whole");
  await run("key = 'ghp_' + 'q8Zk3Wn5Vb1Xc7Rt9Ym2' + 'Lp4Hs6Jd0FgNxTuA'\nprint('-'*20 + key[20:], end='\\r', flush=True); time.sleep(.3)\nprint(key[:20])\nprint('over', 'printed')", "over printed");
  assert.ok(!(await seen()).includes(["ghp", "q8Zk3Wn5Vb1Xc7Rt9Ym2Lp4Hs6Jd0FgNxTuA"].join("_")), "the token is on no page");
  await shot("overprinted");
});

test("a slider moves, and the debugger switches on and off", async () => {
  // ipywidgets is not in the image: this is what a display can do without a comm.
  await run("from IPython.display import HTML\nHTML('<input type=range min=0 max=10 value=3 id=slide oninput=\"document.getElementById(\\'told\\').textContent = \\'at \\' + this.value\"><span id=told>at 3</span>')", "at 3");
  await page.locator("#slide").focus();
  await page.keyboard.press("ArrowRight");
  await until("the slider to move", async () => (await page.locator("#told").innerText()) === "at 4");
  const bug = page.locator(".jp-DebuggerBugButton").first();
  await bug.waitFor({ timeout: 20000 });
  const pressed = () => bug.evaluate((b) => (b.closest("[aria-pressed]") ?? b.querySelector("[aria-pressed]") ?? b).getAttribute("aria-pressed"));
  assert.notEqual(await pressed(), "true");
  await bug.click();
  await until("the debugger to be on", async () => (await pressed()) === "true");
  await run("debugged = 6 * 7\nprint('debugged', debugged)", "debugged 42");
  await bug.click();
  await until("the debugger to be off", async () => (await pressed()) !== "true");
  await run("print('after the', 'debugger')", "after the debugger");
});

test("a download has masks, and the rest of it is as it was", async () => {
  await run(`open("/workspace/notes.txt", "w").write("first line\\nkey " + t + "\\nlast line\\n") and print("wri" + "tten")`, "written");
  const [download] = await Promise.all([
    page.waitForEvent("download"),
    page.evaluate(() => { const a = document.createElement("a"); a.href = "/files/notes.txt?download=1"; a.download = "notes.txt"; document.body.append(a); a.click(); a.remove(); }),
  ]);
  assert.equal(download.suggestedFilename(), "notes.txt");
  assert.equal(await readFile(await download.path(), "utf8"), "first line\nkey [REDACTED:jwt]\nlast line\n");
});

test("the notebook saves, and opens again", async () => {
  await page.keyboard.press("Escape");
  await page.keyboard.press("Control+s");
  const rename = page.locator(".jp-Dialog .jp-mod-accept"); // the first time it asks for a name
  await rename.click({ timeout: 5000 }).catch(() => {});
  await until("the notebook to be saved", async () => (await page.locator(".lm-DockPanel-tabBar .jp-mod-dirty").count()) === 0);
  const model = await page.evaluate(async () => (await fetch("/api/contents/Untitled.ipynb?content=1")).json());
  assert.ok(JSON.stringify(model).includes("[REDACTED:jwt]"));
  assert.ok(!JSON.stringify(model).includes(tail));
});

test("the terminal masks, and vim works in it", async () => {
  await page.evaluate(() => window.jupyterapp?.commands.execute("terminal:create-new")).catch(() => {});
  if (!(await page.locator(".xterm").count())) {
    await page.getByRole("menuitem", { name: "File" }).click();
    await page.getByText("New", { exact: true }).first().hover();
    await page.getByRole("menuitem", { name: "Terminal" }).click();
  }
  await page.locator(".xterm").waitFor({ timeout: 30000 });
  await page.locator(".xterm").click();
  const told = (what, text) => until(what, () => terminal.includes(text));
  const type = async (text) => { terminal = ""; await page.keyboard.type(text); await page.keyboard.press("Enter"); };
  await told("the prompt", "$ ");
  await type(`${pieces.map((p, i) => `P${i}=${p}`).toReversed().join("; ")}; echo assig''ned`);
  await told("the pieces", "assigned");
  await type(`echo "Bearer ${pieces.map((_, i) => `$P${i}`).join("")}"; echo all-of-''it`);
  await told("what follows the token", "all-of-it");
  assert.match(terminal, /Bearer \[REDACTED:jwt/);
  assert.ok(!terminal.includes(tail.slice(0, 30)), terminal);
  await shot("terminal");
  await type("command -v vim vi nano | head -1; echo found-''it");
  await told("an answer", "found-it");
  const editor = terminal.match(/\/(vim|vi|nano)\b/)?.[1];
  if (editor?.startsWith("vi")) {
    await type(`${editor} /workspace/poem.txt`);
    await told("the editor", "[New");
    await page.keyboard.type("ithe quick brown fox");
    await page.keyboard.press("Escape");
    await type(":wq");
    await told("the prompt again", "$ ");
    await type("wc -c /workspace/poem.txt");
    await told("the file", "20 /workspace/poem.txt");
  }
  // A screen that is drawn with escape sequences: what full-screen programs do.
  await type("python3 -c \"import sys; [sys.stdout.write(f'\\x1b[{r};{r*3}H\\x1b[3{r}mrow{r}\\x1b[0m') for r in range(1,8)]; print('\\x1b[9;1Hdra' 'wn')\"");
  await told("the screen", "drawn");
  assert.match(terminal, /\x1b\[5;15H\x1b\[35mrow5/);
});

test("nothing in JupyterLab failed", async () => {
  assert.deepEqual(errors, []);
});
