/**
 * A file system of its own, which a test can fill and make read-only. Needs root.
 *
 * @module
 */

/** A tmpfs, which is gone when its scope ends. */
export class SmallDisk implements Disposable {
  /** Where it is mounted. */
  readonly directory: string = Deno.makeTempDirSync({ prefix: "denim-disk-" });

  /**
   * Makes it.
   *
   * @param size how much it can hold, as mount(8) has it
   */
  constructor(size = "256k") {
    try {
      run("mount", "-t", "tmpfs", "-o", `size=${size}`, "denim-test", this.directory);
    } catch (error) {
      Deno.removeSync(this.directory);
      throw error;
    }
  }

  /** Leaves no room on it. */
  fill(): void {
    using file = Deno.openSync(`${this.directory}/filler`, { create: true, append: true });
    const page = new Uint8Array(4096);
    try {
      while (file.writeSync(page) > 0);
    } catch {
      // Full it is.
    }
  }

  /** Makes room again. */
  empty(): void {
    Deno.removeSync(`${this.directory}/filler`);
  }

  /** Lets nothing more be written to it. To be called while no file on it is open. */
  makeReadOnly(): void {
    run("mount", "-o", "remount,ro", this.directory);
  }

  /** Removes it, whoever has files on it open. */
  [Symbol.dispose](): void {
    run("umount", "-l", this.directory);
    Deno.removeSync(this.directory);
  }
}

function run(command: string, ...args: readonly string[]): void {
  const { success, stderr } = new Deno.Command(command, { args: [...args] }).outputSync();
  if (!success) throw new Error(`${command}: ${new TextDecoder().decode(stderr)}`);
}
