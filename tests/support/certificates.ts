/**
 * Certificates for one test, made with openssl.
 *
 * @module
 */

/** A certificate and its key, as files. */
export interface Certificate {
  /** The certificate's file. */
  readonly cert: string;
  /** Its private key's file. */
  readonly key: string;
}

/** A folder of certificates, which is gone when its scope ends. */
export class Certificates implements Disposable {
  /** Where they are. */
  readonly directory: string = Deno.makeTempDirSync({ prefix: "denim-certificates-" });

  /** Makes an authority. */
  authority(name: string): Certificate {
    const { cert, key } = this.#files(name);
    openssl(
      "req",
      "-x509",
      ...NEW_KEY,
      "-keyout",
      key,
      "-out",
      cert,
      "-days",
      "2",
      ...subject(name),
    );
    return { cert, key };
  }

  /** Makes a certificate for names such as `DNS:localhost,IP:127.0.0.1`. */
  issue(
    name: string,
    by: Certificate,
    names: string,
    options: {
      readonly expired?: boolean;
      /** Whom it is for, as openssl has it: `/CN=…`. */
      readonly subject?: string;
    } = {},
  ): Certificate {
    const { cert, key } = this.#files(name);
    const [request, extensions] = [`${cert}.csr`, `${cert}.ext`];
    const whom = options.subject === undefined ? subject(name) : ["-subj", options.subject];
    openssl("req", ...NEW_KEY, "-keyout", key, "-out", request, ...whom);
    Deno.writeTextFileSync(
      extensions,
      `subjectAltName=${names}\nextendedKeyUsage=serverAuth,clientAuth\n`,
    );
    const days = options.expired ? "-1" : "2";
    const signer = ["-CA", by.cert, "-CAkey", by.key, "-CAcreateserial", "-extfile", extensions];
    openssl("x509", "-req", "-in", request, "-out", cert, "-days", days, ...signer);
    return { cert, key };
  }

  /** Removes them. */
  [Symbol.dispose](): void {
    Deno.removeSync(this.directory, { recursive: true });
  }

  #files(name: string): Certificate {
    return { cert: `${this.directory}/${name}.crt`, key: `${this.directory}/${name}.key` };
  }
}

const NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

function subject(name: string): readonly string[] {
  return ["-subj", `/CN=denim test ${name}`];
}

function openssl(...args: string[]): void {
  const { success, stderr } = new Deno.Command("openssl", { args }).outputSync();
  if (!success) throw new Error(`openssl ${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
}
