/** What a command may touch: two streams, the folder it was called in, and a signal. No command reaches further. */
import type { App } from '../app.ts';

export interface Io {
  /** For results and nothing else. */
  out(text: string | Buffer): void;
  /** For people: progress, logs, errors. */
  err(text: string | Buffer): void;
  readonly outIsTerminal: boolean;
  readonly errIsTerminal: boolean;
  /** Colours are wanted on stderr: a terminal, and NO_COLOR is not set. */
  readonly colour: boolean;
  /** All of standard input, at most `bytesMax`. */
  readInput(bytesMax: number): Promise<Buffer>;
  /** Ctrl-C or SIGTERM. */
  readonly signal: AbortSignal;
  /** Monotonic milliseconds. */
  now(): number;
  /** Wall clock, nanoseconds since 1970. */
  wallNanos(): bigint;
  openApp(): Promise<App>;
  /** Absolute path of the examples that come with Mayfly. */
  readonly examples: string;
  /** Version of Mayfly, as in `0.1.0`. */
  readonly version: string;
}

export interface Paint {
  bold(text: string): string;
  dim(text: string): string;
  red(text: string): string;
  green(text: string): string;
  yellow(text: string): string;
  cyan(text: string): string;
}

export function paint(colour: boolean): Paint {
  const wrap = (open: number, close: number) => (text: string): string =>
    colour ? `\u001b[${open}m${text}\u001b[${close}m` : text;
  return {
    bold: wrap(1, 22), dim: wrap(2, 22),
    red: wrap(31, 39), green: wrap(32, 39), yellow: wrap(33, 39), cyan: wrap(36, 39),
  };
}

/** One value on stdout, for programs and for reading. */
export function printJson(io: Pick<Io, 'out'>, value: unknown): void {
  io.out(`${JSON.stringify(value, null, 2)}\n`);
}
