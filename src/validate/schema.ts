/**
 * Applies a customer's schema in a thread of its own, within a time and a memory: a schema can be made to take for ever
 * (`uniqueItems` over a million objects, alternatives that call themselves twice), and the host must not wait for it.
 */
import { Worker } from 'node:worker_threads';
import { MayflyError } from '../core/errors.ts';
import { limits } from '../core/limits.ts';
import { within } from '../core/time.ts';
import type { Clock } from '../core/time.ts';

export type SchemaQuestion =
  /** Answered when everything is loaded. */
  | { readonly kind: 'hello' }
  | { readonly kind: 'compile'; readonly schema: Uint8Array }
  | { readonly kind: 'check'; readonly text: string };

/** Absent: it fits. */
export interface SchemaAnswer {
  readonly problem?: string;
}

export class SchemaChecker {
  readonly #worker: Worker;
  readonly #clock: Clock;
  #ended = false;

  private constructor(clock: Clock) {
    this.#clock = clock;
    this.#worker = new Worker(new URL('./schema-worker.ts', import.meta.url), {
      env: {}, stdin: false, resourceLimits: { maxOldGenerationSizeMb: limits.schemaHeapMiB },
    });
    // What does not fit into its memory ends the thread; whoever waits for an answer hears of it.
    this.#worker.on('error', () => {}).once('exit', () => { this.#ended = true; });
    this.#worker.unref();
  }

  /** Compiles. Rejects with E_SCHEMA_INVALID. */
  static async open(schema: Buffer, clock: Clock): Promise<SchemaChecker> {
    const checker = new SchemaChecker(clock);
    const started = await checker.#ask({ kind: 'hello' }, limits.schemaStartMillisMax);
    const { problem } = started.problem === undefined
      ? await checker.#ask({ kind: 'compile', schema }, limits.schemaCompileMillisMax)
      : started;
    if (problem === undefined) return checker;
    await checker.close();
    throw new MayflyError('E_SCHEMA_INVALID', problem);
  }

  /** `text`: JSON. Resolves to what does not fit, in words that are safe to print, or undefined. */
  async check(text: string): Promise<string | undefined> {
    return (await this.#ask({ kind: 'check', text }, limits.schemaCheckMillisMax)).problem;
  }

  async close(): Promise<void> {
    await this.#worker.terminate();
  }

  async #ask(question: SchemaQuestion, millis: number): Promise<SchemaAnswer> {
    if (this.#ended) return { problem: 'the schema took more time or memory than it may, on an earlier output' };
    const worker = this.#worker;
    const answer = new Promise<SchemaAnswer>((resolve) => {
      const settle = (settled: SchemaAnswer): void => {
        worker.off('message', settle).off('exit', lost);
        resolve(settled);
      };
      const lost = (): void => settle({ problem: 'the schema needed more memory than it may' });
      worker.on('message', settle).on('exit', lost);
    });
    worker.ref();
    worker.postMessage(question);
    try {
      return await within(this.#clock, millis, answer, () => new Error('late'));
    } catch {
      await this.close();
      return { problem: `the schema took more than ${millis} ms` };
    } finally {
      worker.unref();
    }
  }
}
