/** Programs that set-up runs: argument lists, never shell text; bounded output; ended by Ctrl-C. */
import { spawn } from 'node:child_process';
import { MayflyError } from '../../src/core/errors.ts';

/** Kept of each of a program's two outputs, bytes: apt-cache's graph of one image has about 10 KB. */
const OUTPUT_BYTES_MAX = 4 * 1024 * 1024;
/** End of a failed program's output that is shown, characters. */
const TAIL_LETTERS = 2_000;

export interface CommandOptions {
  readonly cwd?: string;
  /** Added to the environment. */
  readonly env?: Readonly<Record<string, string>>;
  /**
   * The environment is the caller's, for apt's proxies. Otherwise it is bare: TAR_OPTIONS and the like shape no image.
   */
  readonly inherit?: boolean;
  /** Ends the program with SIGTERM. */
  readonly signal?: AbortSignal;
  /** Called with each line of stdout: progress of long programs. */
  readonly line?: (text: string) => void;
}

export interface CommandResult {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Program and arguments to stdout. Rejects with E_SETUP_MISSING when there is no such program or it fails. */
export async function run(argv: readonly string[], options: CommandOptions = {}): Promise<string> {
  const { status, stdout, stderr } = await attempt(argv, options);
  if (status === 0) return stdout;
  throw failure(argv, `status ${status}`, `${stdout}\n${stderr}`);
}

/** The same without judging the exit status. */
export async function attempt(argv: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
  const { cwd, env = {}, inherit = false, signal } = options;
  return await new Promise((resolve, reject) => {
    const child = spawn('env', plain(argv, env, inherit), { cwd, stdio: ['ignore', 'pipe', 'pipe'], signal });
    const stdout = collect(child.stdout, options.line);
    const stderr = collect(child.stderr, undefined);
    child.once('error', (cause) => reject(unusable(argv, cause, signal)));
    child.once('close', (status, killedBy) => {
      if (status === null) reject(failure(argv, `signal ${killedBy}`, stderr()));
      else resolve({ status, stdout: stdout(), stderr: stderr() });
    });
  });
}

/** Two programs, the first one's stdout being the second one's stdin. */
export async function pipe(from: readonly string[], to: readonly string[], signal?: AbortSignal): Promise<void> {
  const source = spawn('env', plain(from), { stdio: ['ignore', 'pipe', 'pipe'], signal });
  const sink = spawn('env', plain(to), { stdio: [source.stdout, 'ignore', 'pipe'], signal });
  // The sink has its own copy of the descriptor; ours would keep the source from noticing that the sink is gone.
  source.stdout.destroy();
  const ends = [{ child: source, argv: from }, { child: sink, argv: to }].map(
    ({ child, argv }) =>
      new Promise<void>((resolve, reject) => {
        const stderr = collect(child.stderr, undefined);
        child.once('error', (cause) => reject(unusable(argv, cause, signal)));
        child.once('close', (status) => {
          if (status === 0) resolve();
          else reject(failure(argv, `status ${status}`, stderr()));
        });
      }),
  );
  const failed = (await Promise.allSettled(ends)).find((end) => end.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}

/** Arguments of env(1), which becomes the program itself. Output is parsed, so it must not be translated. */
function plain(argv: readonly string[], env: Readonly<Record<string, string>> = {}, inherit = false): string[] {
  const bare = inherit ? [] : ['-i', 'PATH=/usr/sbin:/usr/bin:/sbin:/bin'];
  return [...bare, ...Object.entries({ LC_ALL: 'C', ...env }).map(([name, value]) => `${name}=${value}`), ...argv];
}

function collect(stream: NodeJS.ReadableStream, line: ((text: string) => void) | undefined): () => string {
  const chunks: Buffer[] = [];
  let bytes = 0;
  let rest = '';
  stream.on('data', (chunk: Buffer) => {
    if (bytes < OUTPUT_BYTES_MAX) chunks.push(chunk);
    bytes += chunk.length;
    if (line === undefined) return;
    const lines = (rest + chunk.toString('utf8')).split('\n');
    rest = (lines.pop() ?? '').slice(-TAIL_LETTERS);
    lines.forEach(line);
  });
  return () => Buffer.concat(chunks).toString('utf8');
}

function unusable(argv: readonly string[], cause: Error, signal: AbortSignal | undefined): MayflyError {
  if (signal?.aborted === true) return new MayflyError('E_INTERRUPTED', 'Set-up was interrupted.', { cause });
  return new MayflyError('E_SETUP_MISSING', `${argv[0]} could not be run: ${cause.message}`, { cause });
}

function failure(argv: readonly string[], how: string, output: string): MayflyError {
  const detail = output.trim().slice(-TAIL_LETTERS);
  const remedy = 'Read the output below; when it is a passing fault such as a lost connection, run set-up again.';
  return new MayflyError('E_SETUP_MISSING', `${argv.join(' ').slice(0, 200)} failed with ${how}`, { detail, remedy });
}
