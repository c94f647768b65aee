/**
 * What lives as long as a node.
 *
 * @module
 */

/** Objects of which a node has one each, whatever sessions of its backends come and go. */
export class NodeScope {
  readonly #objects = new Map<unknown, unknown>();

  /**
   * The node's object of a class: the first caller makes it, later ones get the same.
   *
   * ```ts
   * import { NodeScope } from "@denim/core";
   * class Connections {
   *   readonly open = new Set<string>();
   * }
   * const scope = new NodeScope();
   * const connections = scope.get(Connections, () => new Connections());
   * console.log(connections === scope.get(Connections, () => new Connections())); // true
   * ```
   */
  get<T>(kind: abstract new (...args: never[]) => T, make: () => T): T {
    if (!this.#objects.has(kind)) this.#objects.set(kind, make());
    return this.#objects.get(kind) as T;
  }
}
