/** `mayfly run`: one event through one fresh VM. The output goes to stdout, everything else to stderr. */
import { constants } from 'node:fs';
import { access, readFile, stat } from 'node:fs/promises';
import { extname } from 'node:path';
import type { Engine, RunOrder } from '../app.ts';
import type { AcceleratorMode } from '../clone/accelerator.ts';
import { MayflyError } from '../core/errors.ts';
import { limits } from '../core/limits.ts';
import { packFunction } from '../event/code.ts';
import type { Workload } from '../event/workload.ts';
import type { RequestedLimits } from '../profile/request.ts';
import type { Outcome } from '../stages.ts';
import { exitCodeOf } from '../validate/verdict.ts';
import { paint } from './io.ts';
import type { Io } from './io.ts';
import { formatProblem, formatSummary, formatTimeline, jsonOutcome } from './report.ts';
import { parseDuration, parseSize } from './units.ts';

export interface RunOptions {
  readonly image?: string;
  readonly handler?: string;
  readonly exec?: string;
  readonly code?: string;
  readonly event?: string;
  readonly data?: string;
  readonly timeout?: string;
  readonly memory?: string;
  readonly cpu?: string;
  readonly pids?: string;
  readonly scratch?: string;
  readonly accel: string;
  readonly raw?: boolean;
  readonly json?: boolean;
  readonly trace?: boolean;
}

/** Image of a handler by its ending; an executable needs no runtime. */
const IMAGE_OF_ENDING: Readonly<Record<string, string>> = { '.mjs': 'node', '.js': 'node', '.cjs': 'node', '.py': 'python' };

/** Resolves to the exit code. */
export async function run(io: Io, options: RunOptions, args: readonly string[]): Promise<number> {
  const colours = paint(io.colour);
  const app = await io.openApp();
  const order = await makeOrder(io, options, args);
  const { reports } = await app.reclaim();
  for (const report of reports) io.err(`mayfly: ${report}\n`);
  let engine: Engine | undefined;
  const outcome = await app.run(order, {
    engine: (used) => {
      engine = used;
      if (used.vmm.isolation === 'tcg' && options.accel !== 'tcg') io.err(colours.yellow(tcgWarning(used)));
    },
    progress: (what) => io.err(colours.dim(`mayfly: ${what} …\n`)),
    retry: ({ failure }) => io.err(`mayfly: the clone was given up before delivery (${failure?.message}), trying another\n`),
    stdout: (chunk) => io.err(chunk),
    stderr: (chunk) => io.err(chunk),
  });
  if (options.json === true) io.out(`${JSON.stringify(jsonOutcome(outcome, engine))}\n`);
  else if (outcome.verdict.kind === 'accepted') io.out(shown(io, outcome));
  else io.err(formatProblem(outcome.verdict, colours));
  if (options.trace === true) io.err(formatTimeline(outcome.timeline, colours) + formatSummary(outcome, colours));
  warn(io, outcome);
  return exitCodeOf(outcome.verdict);
}

function tcgWarning({ accelerator }: Engine): string {
  return `mayfly: software emulation (TCG), which QEMU gives no isolation promise: ${accelerator.why}\n`;
}

function warn(io: Io, { truncated, release, state }: Outcome): void {
  for (const stream of ['stdout', 'stderr'] as const) {
    if (truncated[stream]) io.err(`mayfly: the function's ${stream} was longer than its limit; the rest was dropped\n`);
  }
  if (state === 'quarantined' && !release.verified) {
    io.err(`mayfly: ALARM: still there after release: ${release.left.join(', ')}\n`);
  }
}

/** Exact bytes for programs; indented JSON for people. */
function shown(io: Io, { output }: Outcome): string | Buffer {
  const bytes = output ?? Buffer.alloc(0);
  if (!io.outIsTerminal) return bytes.at(-1) === 0x0a || bytes.length === 0 ? bytes : Buffer.concat([bytes, Buffer.from('\n')]);
  try {
    return `${JSON.stringify(JSON.parse(bytes.toString('utf8')), null, 2)}\n`;
  } catch {
    return bytes;
  }
}

async function makeOrder(io: Io, options: RunOptions, args: readonly string[]): Promise<RunOrder> {
  const accelerator = acceleratorOf(options.accel);
  const requested = limitsOf(options);
  const { image, workload } = await workloadOf(options, args);
  return { image, workload, event: await eventOf(io, options), limits: requested, accelerator, signal: io.signal };
}

function acceleratorOf(text: string): AcceleratorMode {
  if (text === 'auto' || text === 'kvm' || text === 'tcg') return text;
  throw new MayflyError('E_USAGE', `--accel ${text}: must be auto, kvm or tcg`);
}

function limitsOf({ timeout, memory, cpu, pids, scratch }: RunOptions): RequestedLimits {
  return {
    ...(timeout === undefined ? {} : { wallMillis: parseDuration(timeout, '--timeout') }),
    ...(memory === undefined ? {} : { memoryBytes: parseSize(memory, '--memory') }),
    ...(cpu === undefined ? {} : { cpuQuotaMicros: Math.round(number(cpu, '--cpu') * limits.cpuPeriodMicros) }),
    ...(pids === undefined ? {} : { pids: number(pids, '--pids') }),
    ...(scratch === undefined ? {} : { scratchBytes: parseSize(scratch, '--scratch') }),
  };
}

function number(text: string, option: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value)) throw new MayflyError('E_USAGE', `${option} ${text}: not a number`);
  return value;
}

async function workloadOf(options: RunOptions, args: readonly string[]): Promise<{ image: string; workload: Workload }> {
  const { handler, exec, code } = options;
  if ((handler === undefined) === (exec === undefined)) {
    throw new MayflyError('E_USAGE', handler === undefined ? 'nothing to run' : '--handler and --exec exclude each other', {
      remedy: 'Give a handler with `--handler h.mjs`, or a program with `--exec ./program`.',
    });
  }
  if (handler !== undefined) {
    if (args.length > 0) throw new MayflyError('E_USAGE', `a handler takes no arguments: ${args.join(' ')}`);
    const packed = await packFunction({ entry: handler, folder: code });
    const image = options.image ?? IMAGE_OF_ENDING[extname(handler)];
    if (image === undefined) {
      throw new MayflyError('E_USAGE', `${handler}: its ending does not tell which image it needs`, {
        remedy: 'Name the image with `--image node` or `--image python`; a program is run with `--exec`.',
      });
    }
    return { image, workload: { kind: 'runtime', handler: packed.entry, entries: packed.entries } };
  }
  const program = exec ?? '';
  const image = options.image ?? 'shell';
  const raw = options.raw === true;
  // A path that is not on this disk names a program of the image.
  if (program.startsWith('/') && !(await exists(program))) {
    return { image, workload: { kind: 'executable', argv: [program, ...args], raw, entries: [] } };
  }
  const packed = await packFunction({ entry: program, folder: code });
  await requireExecutable(program);
  return { image, workload: { kind: 'executable', argv: [packed.entry, ...args], raw, entries: packed.entries } };
}

async function requireExecutable(path: string): Promise<void> {
  await access(path, constants.X_OK).catch((cause: unknown) => {
    throw new MayflyError('E_HANDLER_MISSING', `${path} is not executable`, { cause, remedy: `Run \`chmod +x ${path}\`.` });
  });
}

async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined;
}

async function eventOf(io: Io, { event, data }: RunOptions): Promise<Buffer> {
  if (event !== undefined && data !== undefined) throw new MayflyError('E_USAGE', '--event and --data exclude each other');
  if (data !== undefined) return Buffer.from(data);
  if (event === undefined) return Buffer.from('{}');
  // One byte over the limit is enough to be refused by the stage that knows it.
  if (event === '-') return await io.readInput(limits.eventBytesMax + 1);
  try {
    const { size } = await stat(event);
    if (size > limits.eventBytesMax) {
      throw new MayflyError('E_EVENT_TOO_LARGE', `${event} has ${size} bytes, the limit is ${limits.eventBytesMax}`);
    }
    return await readFile(event);
  } catch (thrown) {
    if (thrown instanceof MayflyError) throw thrown;
    const { code } = thrown as NodeJS.ErrnoException;
    throw new MayflyError('E_USAGE', `--event ${event}: ${code === 'ENOENT' ? 'there is no such file' : code}`);
  }
}
