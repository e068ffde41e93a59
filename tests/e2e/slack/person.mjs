// A person in a browser: asks, looks at the card, changes what it asks for, approves, and halts the next run.
//   node person.mjs URL CHROMIUM FOLDER
// Prints a line for each thing that was seen; screenshots go into FOLDER.
import { chromium } from "playwright-core";

const [url, executablePath, folder] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const page = await browser.newPage({ viewport: { width: 1400, height: 1000 } });
page.setDefaultTimeout(60_000);

// Asks in the channel, and opens the thread under it: the one after the `before` that are there already.
async function ask(text, before) {
  await page.locator(".composer-input").first().fill(text);
  await page.locator(".composer-send").first().click();
  await page.getByText(/\d+ repl/).nth(before).click();
}

async function seen(what, pattern) {
  await page.getByText(pattern).last().waitFor();
  console.log(`seen: ${what}`);
}

async function picture(name) {
  const clip = { x: 430, y: 44, width: 970, height: 900 };
  await page.screenshot({ path: `${folder}/${name}.png`, clip });
}

await page.goto(url);
await ask("@fermata set line 4 to 1200 rpm", 0);
await seen("a card", /wants to call set_speed/);
await page.getByRole("button", { name: "Details", exact: true }).last().scrollIntoViewIfNeeded();
await picture("slack-card");
await page.getByRole("button", { name: "Edit", exact: true }).last().click();
await page.locator(".bk-select").last().selectOption("line-4");
const rpm = page.locator(".bk-plain-input").last();
await rpm.fill("2900");
await page.locator(".modal-btn.primary").click();
await seen("a refusal in the form", /2800 rpm/);
await picture("slack-form");
await rpm.fill("1150");
await page.locator(".modal-btn.primary").click();
await seen("the record", /approved with other arguments/);
await seen("the answer", /Done: set speed/);
await picture("slack-record");
await page.locator(".thread-x").click();
await ask("@fermata stop line 2, please", 1);
await seen("another card", /wants to call stop_line/);
await page.locator(".composer-input").last().fill("stop");
await page.locator(".composer-send").last().click();
await seen("the halt's report", /settled/);
await picture("slack-halt");
await browser.close();
