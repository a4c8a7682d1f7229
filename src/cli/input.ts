/** What a caller hands in as a file or a pipe: bounded, and given up on Ctrl-C. */
import { createReadStream } from 'node:fs';
import { addAbortSignal } from 'node:stream';
import type { Readable } from 'node:stream';
import { MayflyError } from '../core/errors.ts';

export interface ReadOptions {
  /** One byte over a limit is enough to be refused by whoever knows that limit. */
  readonly bytesMax: number;
  readonly signal: AbortSignal;
}

/** At most `bytesMax` bytes, then the stream is closed. Rejects with E_INTERRUPTED, or as the stream does. */
export async function readAtMost(stream: Readable, { bytesMax, signal }: ReadOptions): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const chunk of addAbortSignal(signal, stream) as AsyncIterable<Buffer>) {
      chunks.push(chunk);
      bytes += chunk.length;
      if (bytes >= bytesMax) break;
    }
  } catch (thrown) {
    if (!signal.aborted) throw thrown;
    throw new MayflyError('E_INTERRUPTED', 'The run was interrupted while its input was read.', { cause: thrown });
  }
  return Buffer.concat(chunks).subarray(0, bytesMax);
}

/** A file, or what only looks like one: `--event <(command)` is a pipe without a size. */
export async function readFileAtMost(path: string, options: ReadOptions): Promise<Buffer> {
  return await readAtMost(createReadStream(path), options);
}
