/**
 * A browser without a window, driven by the DevTools protocol
 * (https://chromedevtools.github.io/devtools-protocol/), as far as tests of the page need it.
 *
 * @module
 */

import { existsSync } from "node:fs";
import { eventually } from "./wait.ts";

/** Debian's package, by its program. */
export const CHROMIUM = "chromium";

/** Where it is; `undefined` if it is not installed. */
function findChromium(): string | undefined {
  return ["/usr/bin/chromium", "/usr/local/bin/chromium"].find(existsSync);
}

/** What a tab is opened with. */
export interface TabOptions {
  /** Its width, in CSS pixels. */
  readonly width?: number;
  /** Its height, in CSS pixels. */
  readonly height?: number;
  /** Which colours the reader likes. */
  readonly scheme?: "light" | "dark";
}

type Params = Readonly<Record<string, unknown>>;
interface Message {
  readonly id?: number;
  readonly sessionId?: string;
  readonly method?: string;
  readonly params?: Params;
  readonly result?: Params;
  readonly error?: { readonly message: string };
}

/** A browser, until it is disposed of. */
export class Browser implements AsyncDisposable {
  readonly #process: Deno.ChildProcess;
  readonly #folder: string;
  readonly #socket: WebSocket;
  readonly #waiting = new Map<number, PromiseWithResolvers<Params>>();
  readonly #listeners = new Map<string, (method: string, params: Params) => void>();
  #sent = 0;

  private constructor(process: Deno.ChildProcess, folder: string, socket: WebSocket) {
    this.#process = process;
    this.#folder = folder;
    this.#socket = socket;
    socket.onmessage = ({ data }: MessageEvent<string>) => this.#take(JSON.parse(data));
  }

  /** Starts one with a profile of its own. */
  static async start(): Promise<Browser> {
    const folder = Deno.makeTempDirSync({ prefix: "denim-browser-" });
    const process = new Deno.Command(findChromium() ?? CHROMIUM, {
      args: [
        "--headless=new",
        // Root may not use the sandbox, and what is shown is denim's own.
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-extensions",
        "--no-first-run",
        "--hide-scrollbars",
        "--remote-debugging-port=0",
        `--user-data-dir=${folder}`,
        "about:blank",
      ],
      stdin: "null",
      stdout: "null",
      stderr: "null",
      env: { HOME: folder },
    }).spawn();
    let url = "";
    await eventually("the browser starts", () => {
      const path = `${folder}/DevToolsActivePort`;
      const [port, route] = existsSync(path) ? Deno.readTextFileSync(path).split("\n") : [];
      url = `ws://127.0.0.1:${port}${route}`;
      return route !== undefined;
    }, 60_000);
    const socket = new WebSocket(url);
    await new Promise((resolve, reject) => {
      socket.onopen = resolve;
      socket.onerror = () => reject(new Error(`${url}: the browser does not answer`));
    });
    return new Browser(process, folder, socket);
  }

  #take({ id, sessionId, method, params, result, error }: Message): void {
    if (id === undefined) {
      if (sessionId !== undefined) this.#listeners.get(sessionId)?.(method!, params!);
      return;
    }
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error === undefined) waiting?.resolve(result!);
    else waiting?.reject(new Error(error.message));
  }

  /** Sends a command, to a tab or to the browser. */
  send(method: string, params: Params = {}, sessionId?: string): Promise<Params> {
    const id = ++this.#sent;
    const waiting = Promise.withResolvers<Params>();
    this.#waiting.set(id, waiting);
    this.#socket.send(JSON.stringify({ id, method, params, ...sessionId && { sessionId } }));
    return waiting.promise;
  }

  /** Opens a tab without a page. */
  async open({ width = 1280, height = 900, scheme = "light" }: TabOptions = {}): Promise<Tab> {
    const { targetId } = await this.send("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await this.send("Target.attachToTarget", { targetId, flatten: true });
    const tab = new Tab(
      (method, params) => this.send(method, params, sessionId as string),
      async () => void await this.send("Target.closeTarget", { targetId }),
    );
    this.#listeners.set(sessionId as string, (method, params) => tab.hear(method, params));
    for (const domain of ["Page", "Runtime", "Network", "Log"]) await tab.send(`${domain}.enable`);
    await tab.resize(width, height);
    await tab.send("Emulation.setEmulatedMedia", {
      features: [{ name: "prefers-color-scheme", value: scheme }],
    });
    return tab;
  }

  /** Ends it. */
  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise((resolve) => this.#socket.onclose = resolve);
    this.send("Browser.close").catch(() => {});
    await this.#process.status;
    await closed;
    // Helpers of its own may still be writing.
    await eventually("the profile can be removed", () => {
      try {
        Deno.removeSync(this.#folder, { recursive: true });
        return true;
      } catch {
        return false;
      }
    });
  }
}

/** A tab, until it is disposed of. */
export class Tab implements AsyncDisposable {
  /** Errors that the page caused: exceptions, and what the console says of them. */
  readonly errors: string[] = [];
  /** Every address that was asked for. */
  readonly requests: string[] = [];
  /** Sends a command to the tab. */
  readonly send: (method: string, params?: Params) => Promise<Params>;

  readonly #close: () => Promise<void>;

  /** @internal Made by the browser. */
  constructor(send: Tab["send"], close: () => Promise<void>) {
    this.send = send;
    this.#close = close;
  }

  /** Closes it. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#close();
  }

  /** @internal */
  hear(method: string, params: Params): void {
    const { request, exceptionDetails, entry, type, args } = params as {
      request?: { url: string };
      exceptionDetails?: { text: string; exception?: { description?: string } };
      entry?: { level: string; text: string };
      type?: string;
      args?: { value?: unknown; description?: string }[];
    };
    if (method === "Network.requestWillBeSent") this.requests.push(request!.url);
    if (method === "Runtime.exceptionThrown") {
      this.errors.push(exceptionDetails!.exception?.description ?? exceptionDetails!.text);
    }
    if (method === "Log.entryAdded" && entry!.level === "error") this.errors.push(entry!.text);
    if (method === "Runtime.consoleAPICalled" && (type === "error" || type === "warning")) {
      this.errors.push(args!.map(({ value, description }) => description ?? `${value}`).join(" "));
    }
  }

  /** Sets the size of the window, in CSS pixels. */
  async resize(width: number, height: number, scale = 1): Promise<void> {
    await this.send("Emulation.setDeviceMetricsOverride", {
      width,
      height,
      deviceScaleFactor: scale,
      mobile: false,
    });
  }

  /** Goes to a page. */
  async go(url: string): Promise<void> {
    const { errorText } = await this.send("Page.navigate", { url });
    if (errorText) throw new Error(`${url}: ${errorText}`);
    await this.until("the document", "document.readyState !== 'loading' && document.body");
  }

  /** Brings it before the other tabs: one that is behind draws nothing. */
  async toFront(): Promise<void> {
    await this.send("Page.bringToFront");
  }

  /** What an expression is, in the page. */
  async read<Value>(expression: string): Promise<Value> {
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", {
      expression,
      returnByValue: true,
      awaitPromise: true,
    }) as {
      result: { value: Value };
      exceptionDetails?: { exception?: { description?: string } };
    };
    if (exceptionDetails !== undefined) {
      throw new Error(`${expression}: ${exceptionDetails.exception?.description}`);
    }
    return result.value;
  }

  /** Waits until an expression is true in the page. */
  async until(what: string, expression: string, patienceMs?: number): Promise<number> {
    return await eventually(what, () => this.read<boolean>(`!!(${expression})`), patienceMs);
  }

  /** Presses a key by its name, as `KeyboardEvent.key` has it: "Tab", "ArrowRight", "n". */
  async press(key: string): Promise<void> {
    const codes: Readonly<Record<string, number>> = {
      Tab: 9,
      Enter: 13,
      ArrowLeft: 37,
      ArrowUp: 38,
      ArrowRight: 39,
      ArrowDown: 40,
    };
    const text = key === "Enter" ? "\r" : key.length === 1 ? key : undefined;
    const event = { key, windowsVirtualKeyCode: codes[key], ...text && { text } };
    await this.send("Input.dispatchKeyEvent", { type: "keyDown", ...event });
    await this.send("Input.dispatchKeyEvent", { type: "keyUp", ...event });
  }

  /** The page as a PNG file, the whole of it or what is seen. */
  async picture(path: string, whole = true): Promise<void> {
    const { data } = await this.send("Page.captureScreenshot", {
      format: "png",
      captureBeyondViewport: whole,
    });
    await Deno.writeFile(path, Uint8Array.fromBase64(data as string));
  }
}
