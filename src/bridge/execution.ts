/**
 * The part of a session in which the function runs: three streams from the guest, their ends, and EXIT. It judges what
 * arrives and collects the result; it neither writes nor waits.
 */
import type { Clock } from '../core/time.ts';
import { ProtocolError, streams } from './frame.ts';
import type { Message } from './message.ts';
import type { End } from './streams.ts';
import { Inflow } from './streams.ts';

type Exit = Message<'EXIT'>;

export interface StreamCount {
  readonly bytes: number;
  /** The guest dropped what was beyond the limit. */
  readonly truncated: boolean;
}

/** How the function ended, as the guest tells it. */
export interface Execution {
  readonly exit: Exit;
  readonly output: Buffer;
  readonly outputTruncated: boolean;
  readonly stdout: StreamCount;
  readonly stderr: StreamCount;
  readonly timings: ExecutionTimings;
}

/** Milliseconds after START was written; undefined for what did not happen. */
interface ExecutionTimings {
  readonly stdinMillis: number | undefined;
  readonly firstDataMillis: number | undefined;
  readonly exitMillis: number;
}

export interface ExecutionOptions {
  readonly clock: Clock;
  readonly limits: { readonly stdoutBytes: number; readonly stderrBytes: number; readonly outputBytes: number };
}

/** What they throw ends the session. */
export interface Listener {
  readonly onStdout: ((chunk: Buffer) => void) | undefined;
  readonly onStderr: ((chunk: Buffer) => void) | undefined;
}

export class RunningExecution {
  /** The first byte of output has come, or the end. */
  readonly spoken: Promise<void>;
  readonly #clock: Clock;
  #speak: () => void = () => {};
  readonly #startedMillis: number;
  readonly #stdout: Inflow;
  readonly #stderr: Inflow;
  readonly #output: Inflow;
  readonly #result: Collector;
  #listener: Listener | undefined;
  /** Logs of a function that was loaded before its event: at most a window for each stream, as no credit is given. */
  #early: { readonly stream: number; readonly bytes: Buffer }[] = [];
  #stdinMillis: number | undefined;
  #firstDataMillis: number | undefined;

  constructor(options: ExecutionOptions) {
    this.#clock = options.clock;
    this.spoken = new Promise((resolve) => {
      this.#speak = resolve;
    });
    this.#startedMillis = options.clock.now();
    this.#stdout = new Inflow('stdout', options.limits.stdoutBytes);
    this.#stderr = new Inflow('stderr', options.limits.stderrBytes);
    this.#output = new Inflow('output', options.limits.outputBytes);
    this.#result = new Collector(options.limits.outputBytes);
  }

  get received(): { readonly stdout: StreamCount; readonly stderr: StreamCount } {
    return { stdout: countOf(this.#stdout), stderr: countOf(this.#stderr) };
  }

  /** Somebody wants the logs: what came before, and what is to come. */
  listen(listener: Listener): void {
    this.#listener = listener;
    for (const { stream, bytes } of this.#early.splice(0)) this.#log(stream, bytes);
  }

  stdinSent(): void {
    this.#stdinMillis = this.#elapsed();
  }

  /** DATA has come. Throws ProtocolError, and what the caller's callbacks throw. */
  data(stream: number, payload: Buffer): void {
    const inflow = this.#inflow(stream);
    inflow.receive(payload.length);
    this.#firstDataMillis ??= this.#elapsed();
    if (inflow === this.#output) {
      this.#result.append(payload);
      this.#speak();
    }
    // A copy: the payload is a view of a chunk that may be much larger.
    else if (this.#listener === undefined) this.#early.push({ stream, bytes: Buffer.from(payload) });
    else this.#log(stream, payload);
  }

  #log(stream: number, bytes: Buffer): void {
    if (stream === streams.stdout) this.#listener?.onStdout?.(bytes);
    else this.#listener?.onStderr?.(bytes);
  }

  /** The credit to grant on a stream now, 0 for none. What was received is used at once. */
  takeCredit(stream: number): number {
    return this.#inflow(stream).takeCredit();
  }

  end(stream: number, end: End): void {
    this.#inflow(stream).finish(end);
  }

  /** EXIT has come: it is the last word only when every stream has ended. Throws ProtocolError. */
  finish(exit: Exit): Execution {
    for (const inflow of [this.#stdout, this.#stderr, this.#output]) {
      if (!inflow.ended) throw new ProtocolError('order', `EXIT before END on ${inflow.name}`);
    }
    this.#speak();
    return {
      exit,
      output: this.#result.take(),
      outputTruncated: this.#output.truncated,
      ...this.received,
      timings: {
        stdinMillis: this.#stdinMillis,
        firstDataMillis: this.#firstDataMillis,
        exitMillis: this.#elapsed(),
      },
    };
  }

  #elapsed(): number {
    return this.#clock.now() - this.#startedMillis;
  }

  #inflow(stream: number): Inflow {
    if (stream === streams.stdout) return this.#stdout;
    return stream === streams.stderr ? this.#stderr : this.#output;
  }
}

function countOf(inflow: Inflow): StreamCount {
  return { bytes: inflow.bytes, truncated: inflow.truncated };
}

/**
 * Bytes in one buffer that grows by doubling. Keeping the payloads instead would keep the chunks that they are views
 * of: a guest that sends single bytes could make 6 MiB of result hold gigabytes.
 */
class Collector {
  readonly #bytesMax: number;
  #buffer: Buffer = Buffer.alloc(0);
  #length = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  append(payload: Buffer): void {
    const needed = this.#length + payload.length;
    if (needed > this.#buffer.length) {
      const size = Math.min(this.#bytesMax, Math.max(needed, 2 * this.#buffer.length, 4096));
      const larger = Buffer.alloc(size);
      this.#buffer.copy(larger, 0, 0, this.#length);
      this.#buffer = larger;
    }
    payload.copy(this.#buffer, this.#length);
    this.#length = needed;
  }

  take(): Buffer {
    return this.#buffer.subarray(0, this.#length);
  }
}
