/** `mayfly run`: one event through one fresh VM. The output goes to stdout, everything else to stderr. */
import { constants } from 'node:fs';
import { access } from 'node:fs/promises';
import { extname } from 'node:path';
import type { Engine, RunOrder } from '../order.ts';
import type { AcceleratorMode } from '../clone/accelerator.ts';
import { MayflyError } from '../core/errors.ts';
import { limits } from '../core/limits.ts';
import { packFunction } from '../event/code.ts';
import type { PackedFunction } from '../event/code.ts';
import { functionClasses } from '../image/manifest.ts';
import type { FunctionClass } from '../image/manifest.ts';
import { parseEnvironment } from '../event/environment.ts';
import type { ServerPort, Workload } from '../event/workload.ts';
import type { RequestedLimits, RequestedPaths } from '../profile/request.ts';
import type { Outcome } from '../stages.ts';
import { exitCodeOf } from '../validate/verdict.ts';
import { formatReasons } from './explain.ts';
import { policyOf } from './facts.ts';
import type { FactOptions } from './facts.ts';
import { readFileAtMost } from './input.ts';
import { paint } from './io.ts';
import type { Io } from './io.ts';
import { clean, TerminalText } from './log.ts';
import { formatNetwork, networkOf } from './network.ts';
import { outputOf } from './output.ts';
import type { OutputOptions } from './output.ts';
import { formatProblem, formatSummary, formatTimeline, jsonOutcome, prettyJson, tcgWarning } from './report.ts';
import { formatBytes, parseDuration, parseSize } from './units.ts';

export interface RunOptions extends FactOptions, OutputOptions {
  readonly image?: string;
  readonly class?: string;
  readonly allowUnsigned?: boolean;
  readonly handler?: string;
  readonly exec?: string;
  readonly program?: string;
  readonly code?: string;
  readonly env?: readonly string[];
  readonly port?: string;
  readonly event?: string;
  readonly data?: string;
  readonly timeout?: string;
  readonly memory?: string;
  readonly cpu?: string;
  readonly pids?: string;
  readonly scratch?: string;
  readonly lsm?: string;
  readonly diskRate?: string;
  readonly diskOperations?: string;
  readonly hide?: readonly string[];
  readonly readOnly?: readonly string[];
  readonly allow?: readonly string[];
  readonly network?: string;
  readonly accel: string;
  readonly raw?: boolean;
  readonly json?: boolean;
  readonly trace?: boolean;
  readonly explain?: boolean;
  readonly keep?: boolean;
}

/** Program of the runtime that a handler needs, by its ending. */
export const languageOfEnding: ReadonlyMap<string, string> = new Map([
  ['.mjs', 'node'], ['.js', 'node'], ['.cjs', 'node'], ['.py', 'python3'],
]);

/** Resolves to the exit code. */
export async function run(io: Io, options: RunOptions, args: readonly string[]): Promise<number> {
  const colours = paint(io.colour);
  const order = await makeOrder(io, options, args);
  const app = await io.openApp();
  const { reports } = await app.reclaim();
  for (const report of reports) io.err(`mayfly: ${report}\n`);
  let engine: Engine | undefined;
  const outcome = await app.run(order, {
    engine: (used) => {
      engine = used;
      if (used.vmm.isolation === 'tcg' && options.accel !== 'tcg') {
        io.err(colours.yellow(`mayfly: ${tcgWarning(used.accelerator)}\n`));
      }
    },
    progress: (what) => io.err(colours.dim(`mayfly: ${what} …\n`)),
    retry: ({ failure }) => {
      io.err(`mayfly: the clone was given up before delivery (${failure?.message}), trying another\n`);
    },
    stdout: logTo(io),
    stderr: logTo(io),
  });
  const raw = options.raw === true;
  if (options.json === true) io.out(`${jsonOutcome(outcome, { engine, raw })}\n`);
  else if (outcome.verdict.kind === 'accepted') io.out(shown(io, outcome, raw));
  else io.err(formatProblem(outcome.verdict, colours));
  if (outcome.profile !== undefined && (options.explain === true || (options.trace === true && decided(outcome)))) {
    io.err(formatReasons(outcome.profile, colours));
  }
  if (options.trace === true) {
    io.err(formatTimeline(outcome.timeline, colours));
    io.err(formatNetwork(outcome.network, colours) + formatSummary(outcome, colours));
  }
  warn(io, outcome);
  return exitCodeOf(outcome.verdict);
}

/** Somebody beside the caller had something to say. */
function decided({ profile }: Outcome): boolean {
  return profile?.reasons.some(({ field }) => field === 'threat' || field === 'rules') === true;
}

function warn(io: Io, { truncated, release, state, verdict, snapshot, runId }: Outcome): void {
  if (snapshot?.kind === 'kept') {
    io.err(`mayfly: kept (${snapshot.because}): mayfly forensics show ${runId}\n`);
  } else if (snapshot?.kind === 'skipped') {
    io.err(`mayfly: not kept (${snapshot.because}): ${snapshot.reason}\n`);
  }
  const notes = verdict.kind === 'accepted' ? (verdict.notes ?? []) : [];
  for (const { check, what } of notes) io.err(`mayfly: note on the output (${check}): ${what}\n`);
  for (const stream of ['stdout', 'stderr'] as const) {
    if (truncated[stream]) io.err(`mayfly: the function's ${stream} was longer than its limit; the rest was dropped\n`);
  }
  if (state === 'quarantined' && !release.verified) {
    io.err(`mayfly: ALARM: still there after release: ${release.left.join(', ')}\n`);
  }
}

function logTo(io: Io): (chunk: Buffer) => void {
  if (!io.errIsTerminal) return (chunk) => io.err(chunk);
  const text = new TerminalText();
  return (chunk) => io.err(text.push(chunk));
}

/** For programs the exact JSON text, or the exact bytes of `--raw`; for people something that they can read. */
function shown(io: Io, { output = Buffer.alloc(0) }: Outcome, raw: boolean): string | Buffer {
  if (raw) return io.outIsTerminal ? clean(output.toString('utf8')) : output;
  return `${io.outIsTerminal ? clean(prettyJson(output.toString('utf8'))) : output.toString('utf8')}\n`;
}

async function makeOrder(io: Io, options: RunOptions, args: readonly string[]): Promise<RunOrder> {
  const accelerator = acceleratorOf(options.accel);
  const requested = limitsOf(options);
  const network = await networkOf(io, options);
  const env = parseEnvironment(options.env ?? []);
  const policy = await policyOf(io, options);
  const functionClass = classOf(options.class);
  const { language, workload: chosen } = await workloadOf(io, options, args);
  const server = serverOf(options);
  const workload = {
    ...chosen,
    ...(env.size === 0 ? {} : { env: new Map([...(chosen.env ?? []), ...env]) }),
    ...(server === undefined ? {} : { server }),
  };
  const allowUnsigned = options.allowUnsigned === true;
  const event = await eventOf(io, options);
  const output = await outputOf(io, options, (path) => handlerOf(io, path, {}, []));
  const demanded = { ...(output === undefined ? {} : { output }), ...(options.keep === true ? { keep: true } : {}) };
  const paths = pathsOf(options);
  const order = { language, allowUnsigned, workload, event, limits: requested, paths, accelerator, signal: io.signal };
  return {
    ...order,
    ...network,
    ...demanded,
    ...(options.image === undefined ? {} : { image: options.image }),
    ...(functionClass === undefined ? {} : { functionClass }),
    ...(policy === undefined ? {} : { policy }),
  };
}

export function classOf(text: string | undefined): FunctionClass | undefined {
  const known = functionClasses.find((each) => each === text);
  if (text === undefined || known !== undefined) return known;
  throw new MayflyError('E_USAGE', `--class ${text}: must be one of ${functionClasses.join(', ')}`);
}

function serverOf({ port, raw }: RunOptions): ServerPort | undefined {
  if (port === undefined) return undefined;
  const { serverPortMin: min, serverPortMax: max } = limits;
  const chosen = number(port, '--port');
  if (!Number.isInteger(chosen) || chosen < min || chosen > max) {
    throw new MayflyError('E_LIMIT_INVALID', `--port ${port}: must be ${min} to ${max}`);
  }
  return { port: chosen, raw: raw === true };
}

export function acceleratorOf(text: string): AcceleratorMode {
  if (text === 'auto' || text === 'kvm' || text === 'tcg') return text;
  throw new MayflyError('E_USAGE', `--accel ${text}: must be auto, kvm or tcg`);
}

export function limitsOf(options: Partial<RunOptions>): RequestedLimits {
  const { timeout, memory, cpu, pids, scratch, diskRate, diskOperations } = options;
  return {
    ...(timeout === undefined ? {} : { wallMillis: parseDuration(timeout, '--timeout') }),
    ...(memory === undefined ? {} : { memoryBytes: parseSize(memory, '--memory') }),
    ...(cpu === undefined ? {} : { cpuQuotaMicros: Math.round(number(cpu, '--cpu') * limits.cpuPeriodMicros) }),
    ...(pids === undefined ? {} : { pids: number(pids, '--pids') }),
    ...(scratch === undefined ? {} : { scratchBytes: parseSize(scratch, '--scratch') }),
    ...(diskRate === undefined ? {} : { diskReadBytesPerSecond: parseSize(diskRate, '--disk-rate') }),
    ...(diskOperations === undefined
      ? {}
      : { diskReadOperationsPerSecond: number(diskOperations, '--disk-operations') }),
  };
}

/** Also says what cannot be had: profiles are compiled for one module of the guest's kernel. */
export function pathsOf({ hide, readOnly, lsm = 'apparmor' }: Partial<RunOptions>): RequestedPaths {
  if (lsm !== 'apparmor') {
    const remedy = 'Leave the option away. docs/decisions/0012-kernel-policy.md says what was tried with SELinux.';
    throw new MayflyError('E_USAGE', `--lsm ${lsm}: guests are confined by apparmor only`, { remedy });
  }
  return { ...(hide === undefined ? {} : { hidden: hide }), ...(readOnly === undefined ? {} : { readOnly }) };
}

function number(text: string, option: string): number {
  const value = Number(text);
  if (text.trim() !== '' && Number.isFinite(value)) return value;
  throw new MayflyError('E_USAGE', `${option} ${text}: not a number`);
}

interface Chosen {
  /** Of a handler; null for an executable. */
  readonly language: string | null;
  readonly workload: Workload;
}

async function workloadOf(io: Io, options: RunOptions, args: readonly string[]): Promise<Chosen> {
  const { handler, exec, program, code } = options;
  const given = [handler, exec, program].filter((each) => each !== undefined);
  if (given.length === 0 && options.image !== undefined) return await ownCommandOf(io, options.image, options, args);
  if (given.length !== 1) {
    const found = given.length === 0 ? 'nothing to run' : `more than one thing to run: ${given.join(', ')}`;
    throw new MayflyError('E_USAGE', found, {
      remedy: 'Give a handler with `--handler`, an executable with `--exec`, or with `--program` one of the image.',
    });
  }
  if (handler !== undefined) return await handlerOf(io, handler, options, args);
  const raw = options.raw === true;
  if (program !== undefined) {
    const absolute = program.startsWith('/');
    if (!absolute) throw new MayflyError('E_USAGE', `--program ${program}: must be an absolute path in the image`);
    if (code !== undefined) throw new MayflyError('E_USAGE', '--program is in the image: --code has nothing to add');
    return { language: null, workload: { kind: 'executable', argv: [program, ...args], raw, entries: [] } };
  }
  const file = exec ?? '';
  const packed = await packFunction({ entry: file, folder: code });
  await requireExecutable(file);
  tellShipped(io, packed);
  const argv = [packed.entry, ...args];
  return { language: null, workload: { kind: 'executable', argv, raw, entries: packed.entries } };
}

/** The command that an imported image was made for; a caller's arguments take the place of its own, as in Docker. */
async function ownCommandOf(io: Io, image: string, options: RunOptions, args: readonly string[]): Promise<Chosen> {
  const allowUnsigned = options.allowUnsigned === true;
  const { images } = await (await io.openApp()).repository();
  const { command } = (await images.get(image, { allowUnsigned })).manifest;
  const argv = command === null ? [] : [...command.entrypoint, ...(args.length > 0 ? args : command.cmd)];
  if (command === null || argv[0]?.startsWith('/') !== true) {
    const why = command === null ? 'has no command of its own' : `cannot run ${argv[0] ?? 'nothing'}: no absolute path`;
    throw new MayflyError('E_USAGE', `the image ${image} ${why}`, {
      remedy: 'Name a program of the image with `--program`, or ship one with `--handler` or `--exec`.',
    });
  }
  const env = new Map(command.env.map((item) => [item.slice(0, item.indexOf('=')), item.slice(item.indexOf('=') + 1)]));
  return { language: null, workload: { kind: 'executable', argv, raw: options.raw === true, entries: [], env } };
}

async function handlerOf(
  io: Io,
  handler: string,
  options: Partial<RunOptions>,
  args: readonly string[],
): Promise<Chosen> {
  if (args.length > 0) throw new MayflyError('E_USAGE', `a handler takes no arguments: ${args.join(' ')}`);
  if (options.raw === true && options.port === undefined) {
    throw new MayflyError('E_USAGE', '--raw is for executables and servers: a handler returns JSON');
  }
  const packed = await packFunction({ entry: handler, folder: options.code });
  const language = languageOfEnding.get(extname(handler)) ?? null;
  if (language === null && options.image === undefined) {
    throw new MayflyError('E_USAGE', `${handler}: its ending does not tell which image it needs`, {
      remedy: 'Name the image with `--image node` or `--image python`; an executable is run with `--exec`.',
    });
  }
  tellShipped(io, packed);
  return { language, workload: { kind: 'runtime', handler: packed.entry, entries: packed.entries } };
}

/** A folder that is shipped because of what stands in it may hold more than its owner had in mind. */
function tellShipped(io: Io, { root, entries, bytes }: PackedFunction): void {
  if (root === undefined) return;
  const what = `${entries.length} files and folders, ${formatBytes(bytes)}`;
  io.err(paint(io.colour).dim(`mayfly: shipping ${root}: ${what}\n`));
}

async function requireExecutable(path: string): Promise<void> {
  await access(path, constants.X_OK).catch((cause: unknown) => {
    const remedy = `Run \`chmod +x ${path}\`.`;
    throw new MayflyError('E_HANDLER_MISSING', `${path} is not executable`, { cause, remedy });
  });
}

export async function eventOf(io: Io, { event, data }: Pick<RunOptions, 'event' | 'data'>): Promise<Buffer> {
  if (event !== undefined && data !== undefined) {
    throw new MayflyError('E_USAGE', '--event and --data exclude each other');
  }
  if (data !== undefined) return Buffer.from(data);
  if (event === undefined) return Buffer.from('{}');
  // One byte over the limit is enough to be refused by the stage that knows it.
  const bytesMax = limits.eventBytesMax + 1;
  if (event === '-') return await io.readInput(bytesMax);
  try {
    return await readFileAtMost(event, { bytesMax, signal: io.signal });
  } catch (thrown) {
    if (thrown instanceof MayflyError) throw thrown;
    const { code } = thrown as NodeJS.ErrnoException;
    const reason = code === 'ENOENT' ? 'there is no such file' : `it cannot be read (${code})`;
    throw new MayflyError('E_USAGE', `--event ${event}: ${reason}`, { cause: thrown });
  }
}
