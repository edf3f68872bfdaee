// Second factors as a person meets them, in Debian's Chromium with its virtual
// authenticators: an app, a passkey beside the password and alone, recovery
// codes, and a group that may not be without; with and without JavaScript.
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { after, before, test } from "node:test";
import { Site, accessible, password } from "./kit.mjs";

const site = new Site("factors");
const until = (...args) => site.until(...args);
const shot = (...args) => site.shot(...args);
const giveName = (...args) => site.giveName(...args);
let browser, origin;

// A person has a browser of their own, and a device with passkeys in it.
async function person(options = {}) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, ...options });
  const page = await context.newPage();
  const errors = [];
  page.on("console", (m) => m.type() === "error" && !/status of 4\d\d/.test(m.text()) && errors.push(m.text()));
  page.on("pageerror", (e) => errors.push(String(e)));
  const cdp = await context.newCDPSession(page);
  await cdp.send("WebAuthn.enable");
  const { authenticatorId } = await cdp.send("WebAuthn.addVirtualAuthenticator", {
    options: { protocol: "ctap2", transport: "internal", hasResidentKey: true, hasUserVerification: true, isUserVerified: true, automaticPresenceSimulation: true },
  });
  return { page, errors, cdp, authenticatorId, context };
}

// An app makes codes as authenticator apps do, and none of them twice.
class App {
  constructor(letters) {
    this.key = Buffer.from([...letters].map((c) => "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".indexOf(c).toString(2).padStart(5, "0")).join("").match(/.{8}/g).map((b) => parseInt(b, 2)));
    this.next = 0;
  }
  // code waits, if it must, until a code that was not used counts.
  async code() {
    const now = () => Math.floor(Date.now() / 30000);
    this.next = Math.max(this.next, now());
    await until("the next code", () => this.next <= now() + 1);
    const step = Buffer.alloc(8);
    step.writeBigUInt64BE(BigInt(this.next++));
    const mac = createHmac("sha1", this.key).update(step).digest();
    this.last = ((mac.readUInt32BE(mac[19] & 15) & 0x7fffffff) % 1000000).toString().padStart(6, "0");
    return this.last;
  }
}

async function signOut(page) {
  await page.getByRole("button", { name: "Sign out" }).first().click();
  await page.waitForURL(`${origin}/signin`);
}

before(async () => {
  await site.start({ config: "factors: {require_groups: [vision]}\n", chromiumArgs: ["--ignore-certificate-errors"] });
  ({ browser, origin } = site);
});

after(() => site.stop());

test("who must have a second factor sets it up before anything else, without JavaScript too", async () => {
  const admin = await person();
  await giveName(admin.page, "admin");
  await admin.page.waitForURL(`${origin}/workspaces`);
  await admin.page.goto(`${origin}/admin`);
  await admin.page.getByLabel("Name", { exact: true }).fill("carol");
  await admin.page.getByLabel("First password").fill(password);
  await admin.page.getByLabel("Groups").fill("vision");
  await admin.page.getByRole("button", { name: "Create" }).click();
  await admin.page.getByRole("rowheader", { name: "carol" }).waitFor();
  await admin.context.close();

  const { page, errors, context } = await person({ javaScriptEnabled: false });
  await giveName(page, "carol");
  await page.getByRole("heading", { name: "Set up a second factor" }).waitFor();
  await page.getByText("must have a second factor").waitFor();
  await shot(page, "must");
  assert.equal(await page.getByRole("button", { name: "Make a passkey" }).isVisible(), false, "passkeys take JavaScript");
  const app = new App(await page.locator("#totp-secret").innerText());
  await page.goto(`${origin}/workspaces`);
  assert.equal(new URL(page.url()).pathname, "/signin", "nothing is open before");
  await giveName(page, "carol");
  const again = new App(await page.locator("#totp-secret").innerText());
  assert.notDeepEqual(app.key, again.key, "each sign-in is offered a secret of its own");
  await page.getByLabel("Code that the app shows now").fill(await app.code());
  await page.getByRole("button", { name: "Set up the app" }).click();
  await page.getByText("that is not the app's code", { exact: false }).waitFor();
  await page.getByLabel("Code that the app shows now").fill(await again.code());
  await page.getByRole("button", { name: "Set up the app" }).click();
  await page.getByRole("heading", { name: "Recovery codes" }).waitFor();
  await page.getByRole("link", { name: "I have them" }).click();
  await page.waitForURL(`${origin}/workspaces`);
  await page.goto(`${origin}/account`);
  await page.getByRole("button", { name: "Remove authenticator app" }).click();
  await page.getByText("your account must have one", { exact: false }).waitFor();
  assert.deepEqual(errors, []);
  await context.close();
});

test("an app, a passkey and recovery codes", async () => {
  const { page, errors, cdp, authenticatorId, context } = await person();
  await giveName(page, "admin");
  await page.waitForURL(`${origin}/workspaces`);
  await page.goto(`${origin}/account`);
  await accessible(page);
  await page.getByRole("link", { name: "Add a second factor" }).click();
  await page.getByRole("heading", { name: "Set up a second factor" }).waitFor();
  await accessible(page);
  await shot(page, "set-up");
  const app = new App(await page.locator("#totp-secret").innerText());
  await page.getByLabel("Name of the app").fill("my phone");
  await page.getByLabel("Code that the app shows now").fill("000000");
  await page.getByRole("button", { name: "Set up the app" }).click();
  await page.getByText("that is not the app's code", { exact: false }).waitFor();
  await page.getByLabel("Code that the app shows now").fill(await app.code());
  await page.getByRole("button", { name: "Set up the app" }).click();
  await page.getByRole("heading", { name: "Recovery codes" }).waitFor();
  await accessible(page);
  await shot(page, "recovery-codes");
  const codes = await page.locator(".codes code").allInnerTexts();
  assert.equal(new Set(codes).size, 10);
  await page.getByRole("link", { name: "I have them" }).click();
  await page.getByText("my phone", { exact: false }).first().waitFor();
  await page.getByText("10 recovery codes left").waitFor();

  // The password is half of it. A wrong code, and the one that set the app up, are not the other.
  await signOut(page);
  await giveName(page, "admin");
  await page.getByRole("heading", { name: "Second step" }).waitFor();
  await accessible(page);
  await shot(page, "second-step");
  const used = app.last;
  for (const code of ["000000", used]) {
    await page.getByLabel("Code of your authenticator app").fill(code);
    await page.getByRole("button", { name: "Go on" }).click();
    await page.getByText("that was not right", { exact: false }).waitFor();
  }
  await shot(page, "wrong-code");
  await page.goto(`${origin}/account`);
  assert.equal(new URL(page.url()).pathname, "/signin", "half a sign-in opens nothing");
  await page.goto(`${origin}/signin/step`);
  await page.getByLabel("Code of your authenticator app").fill(await app.code());
  await page.getByRole("button", { name: "Go on" }).click();
  await page.waitForURL(`${origin}/workspaces`);

  // A passkey, beside the app.
  await page.goto(`${origin}/account/factors`);
  await page.getByLabel("Name of the passkey").fill("laptop");
  await page.getByRole("button", { name: "Make a passkey" }).click();
  await page.waitForURL(`${origin}/account`);
  await page.getByText("laptop").first().waitFor();
  await accessible(page);
  await shot(page, "account");
  assert.equal((await cdp.send("WebAuthn.getCredentials", { authenticatorId })).credentials.length, 1);

  // It signs in beside the password, without a code, and alone.
  await signOut(page);
  await giveName(page, "admin");
  await page.getByRole("button", { name: "Use a passkey" }).click();
  await page.waitForURL(`${origin}/workspaces`);
  await signOut(page);
  await shot(page, "sign-in");
  await accessible(page);
  await page.getByRole("button", { name: "Use a passkey" }).click();
  await page.waitForURL(`${origin}/workspaces`);

  // What matters asks again; the passkey is the answer.
  await page.goto(`${origin}/stepup?to=admin`);
  await accessible(page);
  await shot(page, "step-up");
  await page.getByRole("button", { name: "Use a passkey" }).click();
  await page.waitForURL(`${origin}/admin`);

  // A recovery code stands in once.
  await signOut(page);
  for (const expected of [/\/workspaces$/, /\/signin\/factor$/]) {
    await giveName(page, "admin");
    await page.getByLabel("Code of your authenticator app").fill(codes[3]);
    await page.getByRole("button", { name: "Go on" }).click();
    await page.waitForURL(expected);
    if (/workspaces/.test(page.url())) {
      await page.goto(`${origin}/account`);
      await page.getByText("A recovery code was used").waitFor();
      await shot(page, "told");
      await signOut(page);
    }
  }
  await page.getByText("that was not right", { exact: false }).waitFor();
  assert.deepEqual(errors, []);
  await context.close();
});
