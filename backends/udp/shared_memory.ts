/**
 * Memory that the agent and its threads share.
 *
 * @module
 */

/**
 * Zeroed memory of which only the pages that somebody writes to take up room.
 *
 * V8 maps the memory of a buffer that may grow. It takes that of any other buffer from `calloc`, which, once buffers of
 * that size have been freed, reuses and clears their memory: then all of it is resident, until a garbage
 * collection that shared memory gives V8 no reason for.
 */
export function sharedMemory(byteLength: number): SharedArrayBuffer {
  return new SharedArrayBuffer(byteLength, { maxByteLength: byteLength });
}
