/** A runtime's shim as a process of this machine, with the agent's ends of its pipes (docs/FORMATS.md). */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Readable, Writable } from 'node:stream';
import { text } from 'node:stream/consumers';

export interface Reply {
  readonly ok: boolean;
  readonly value?: unknown;
  readonly phase?: string;
  readonly error?: { readonly name: string; readonly message: string; readonly stack: string; readonly code?: string };
}

export interface Channel {
  /** Words before the reply: what came up to and including `renewed`. */
  readonly words: string;
  /** Undefined when the runtime ended without one. */
  readonly reply: Reply | undefined;
  readonly stdout: string;
  readonly stderr: string;
  readonly status: number | null;
}

export interface DriveOptions {
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly handler: string;
  readonly event: unknown;
  /** Set by the caller of the function, through the request's line. */
  readonly variables?: Readonly<Record<string, string>>;
  /** Between "ready" and "renew", ms: how long a template waits. */
  readonly restMillis?: number;
}

export const context = {
  runId: '01TEST', deadlineMillis: Date.now() + 60_000, memoryBytes: 268_435_456, image: 'test',
};

export async function drive(options: DriveOptions): Promise<Channel> {
  const { argv, env, handler, event, variables, restMillis = 0 } = options;
  const [program = '', ...parameters] = argv;
  const child = spawn(program, parameters, { env, stdio: ['ignore', 'pipe', 'pipe', 'pipe', 'pipe'] });
  const [, stdout, stderr, request, result] = child.stdio as [null, Readable, Readable, Writable, Readable];
  request.on('error', () => {});
  const exited = once(child, 'exit') as Promise<[number | null]>;
  const logs = Promise.all([text(stdout), text(stderr)]);
  const timer = setTimeout(() => child.kill('SIGKILL'), 30_000);
  let said = '';
  let asked = false;
  let delivered = false;
  for await (const chunk of result.setEncoding('utf8') as AsyncIterable<string>) {
    said += chunk;
    if (!asked && said === 'ready\n') {
      asked = true;
      await new Promise((resolve) => setTimeout(resolve, restMillis));
      request.write('renew\n');
    }
    if (!delivered && said === 'ready\nrenewed\n') {
      delivered = true;
      const lines = [{ handler, env: variables }, context, event].map((each) => JSON.stringify(each));
      request.end(lines.join('\n'));
    }
  }
  const [status] = await exited;
  clearTimeout(timer);
  const [out, err] = await logs;
  const words = /^(?:ready\n)?(?:renewed\n)?/.exec(said)?.[0] ?? '';
  const rest = said.slice(words.length);
  return { words, reply: rest === '' ? undefined : (JSON.parse(rest) as Reply), stdout: out, stderr: err, status };
}
