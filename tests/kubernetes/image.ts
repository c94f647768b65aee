/**
 * `deno run -A tests/kubernetes/image.ts FILE [NAME]`: denim's image as an archive (`ctr images import FILE`), made of
 * this checkout and this machine's C library where no image can be pulled or built. deploy/Containerfile says how
 * images are made elsewhere; the files of denim's are the same.
 *
 * @module
 */

import { dirname } from "node:path";
import { sh } from "../support/sh.ts";
import { ROOT } from "../../.ci/source_files.ts";

/** The image that `deploy/kubernetes` and the chart name. */
export const DENIM_IMAGE = "registry.example/denim:0.1.0";

/** What goes into an image. */
export interface ImageContent {
  /** Programs of this machine by their places in the image; the libraries that they load come too. */
  readonly programs?: Readonly<Record<string, string>>;
  /** Puts other files into the image's root folder. */
  readonly fill?: (root: string) => void;
  /** What the image runs. */
  readonly entrypoint: readonly string[];
}

/** Writes an image to a file, in the form of `docker save`. */
export function writeImage(file: string, name: string, content: ImageContent): void {
  const work = Deno.makeTempDirSync({ prefix: "denim-image-" });
  try {
    const root = `${work}/root`;
    for (const folder of ["bin", "tmp", "proc", "sys", "dev", "etc"]) {
      Deno.mkdirSync(`${root}/${folder}`, { recursive: true });
    }
    Deno.chmodSync(`${root}/tmp`, 0o1777);
    for (const [place, program] of Object.entries(content.programs ?? {})) {
      copy(Deno.realPathSync(program), root + place);
      for (const library of librariesOf(program)) copy(library, root + library);
    }
    content.fill?.(root);
    const digest =
      sh('cd "$1" && tar --owner=0 --group=0 -cf layer.tar -C root . && sha256sum layer.tar', [
        work,
      ])
        .split(" ")[0];
    const config = {
      architecture: Deno.build.arch === "x86_64" ? "amd64" : "arm64",
      os: "linux",
      config: { Env: ["PATH=/usr/local/bin:/bin"], Entrypoint: content.entrypoint },
      rootfs: { type: "layers", diff_ids: [`sha256:${digest}`] },
    };
    Deno.writeTextFileSync(`${work}/config.json`, JSON.stringify(config));
    const manifest = [{ Config: "config.json", RepoTags: [name], Layers: ["layer.tar"] }];
    Deno.writeTextFileSync(`${work}/manifest.json`, JSON.stringify(manifest));
    sh('tar -cf "$2" -C "$1" manifest.json config.json layer.tar', [work, file]);
  } finally {
    Deno.removeSync(work, { recursive: true });
  }
}

/** Writes denim's image to a file. */
export function writeDenimImage(file: string, name: string = DENIM_IMAGE): void {
  writeImage(file, name, {
    programs: {
      "/bin/sh": "/bin/dash",
      "/bin/sleep": "/bin/sleep",
      "/usr/bin/deno": Deno.execPath(),
    },
    fill(root) {
      const folders = [`--cni-bin-dir=${root}/usr/local/bin`, `--cni-conf-dir=${root}/tmp`];
      sh('"$@"', [Deno.execPath(), "run", "-A", `${ROOT}/agent/main.ts`, "install", ...folders]);
      // It has a copy of its own.
      Deno.removeSync(`${root}/usr/bin`, { recursive: true });
      Deno.removeSync(`${root}/tmp/10-denim.conflist`);
      const start =
        'mount -t proc proc "$1/proc" && exec chroot "$1" /usr/local/bin/denim agent --help';
      for (let time = 0; time < 2; time++) sh('unshare --mount sh -c "$1" sh "$2"', [start, root]);
    },
    entrypoint: ["/usr/local/bin/denim"],
  });
}

/** The image that the chart's hook waits with, as a registry would have it. */
export const KUBECTL_IMAGE = "registry.example/kubectl:1";

/** Writes an image of kubectl to a file: the program that `KUBECTL` names, or that is on PATH. */
export function writeKubectlImage(file: string): void {
  const program = Deno.env.get("KUBECTL") ?? sh("command -v kubectl").trim();
  writeImage(file, KUBECTL_IMAGE, {
    programs: { "/bin/kubectl": program },
    entrypoint: ["/bin/kubectl"],
  });
}

function librariesOf(program: string): string[] {
  return [...sh('ldd "$1" || true', [program]).matchAll(/(\/\S+\.so\S*)/g)].map(([, path]) =>
    path!
  );
}

function copy(from: string, to: string): void {
  Deno.mkdirSync(dirname(to), { recursive: true });
  Deno.copyFileSync(from, to);
}

if (import.meta.main) {
  const [file, name] = Deno.args;
  if (file === undefined) {
    console.error("name the file to write");
    Deno.exit(2);
  }
  writeDenimImage(file, name);
}
