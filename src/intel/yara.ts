/**
 * YARA over one event and its attachments, through the program `yara`: a child with a time limit, because rules are
 * other people's and can be slow. Rules are the files `*.yar` in MAYFLY_HOME/intel/yara. Without the program there is
 * a note, not a failure: the event is then assessed by everything else.
 */
import { spawn } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Disk } from '../core/disk.ts';
import { MayflyError } from '../core/errors.ts';
import { printableLine } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import type { Clock } from '../core/time.ts';
import type { Attachment } from './observe.ts';

/** Bytes, and where they stand. */
export type Scanned = Pick<Attachment, 'where' | 'content'>;

export interface YaraHit {
  readonly rule: string;
  readonly where: string;
}

export interface YaraScan {
  readonly hits: readonly YaraHit[];
  /** Why not everything was applied, with its code; empty when it was. */
  readonly notes: readonly string[];
}

export interface YaraOptions {
  /** `yara`, looked for where the system keeps its programs. */
  readonly program: string;
  readonly rulesFolder: string;
  /** Does not exist yet; gone afterwards. */
  readonly scratch: string;
  readonly attachments: readonly Scanned[];
  readonly disk: Disk;
  readonly clock: Clock;
}

export async function scanWithYara({
  program,
  rulesFolder,
  scratch,
  attachments,
  disk,
  clock,
}: YaraOptions): Promise<YaraScan> {
  const files = (await disk.list(rulesFolder)).filter((name) => /\.yara?$/.test(name));
  if (files.length === 0 || attachments.length === 0) return { hits: [], notes: [] };
  const notes: string[] = [];
  if (files.length > limits.yaraFilesMax)
    notes.push(`E_INTEL_YARA: only the first ${limits.yaraFilesMax} rule files are used`);
  const rules = files.slice(0, limits.yaraFilesMax).map((name) => join(rulesFolder, name));
  await disk.makeFolder(scratch);
  try {
    for (const [at, { content }] of attachments.entries())
      await writeFile(join(scratch, String(at)), content, { mode: 0o600 });
    const output = await runYara(program, rules, scratch, clock);
    return { hits: hitsOf(output, attachments), notes };
  } catch (thrown) {
    if (!(thrown instanceof MayflyError)) throw thrown;
    return { hits: [], notes: [...notes, `${thrown.code}: ${thrown.message}`] };
  } finally {
    await disk.remove(scratch);
  }
}

function hitsOf(output: string, attachments: YaraOptions['attachments']): YaraHit[] {
  return output.split('\n').flatMap((line) => {
    const match = /^(\w{1,128}) .*\/(\d+)$/.exec(line);
    const attachment = attachments[Number(match?.[2] ?? Number.NaN)];
    return match === null || attachment === undefined ? [] : [{ rule: match[1] ?? '', where: attachment.where }];
  });
}

function runYara(program: string, rules: readonly string[], target: string, clock: Clock): Promise<string> {
  const args = ['--no-warnings', '--threads=1', `--timeout=${limits.yaraSecondsMax}`, ...rules, '--recursive', target];
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], env: {} });
  return new Promise((resolve, reject) => {
    let [output, problem] = ['', ''];
    const refuse = (why: string, cause?: unknown): void => reject(new MayflyError('E_INTEL_YARA', why, { cause }));
    const cancel = clock.after((limits.yaraSecondsMax + 1) * 1000, () => {
      child.kill('SIGKILL');
      refuse(`yara took more than ${limits.yaraSecondsMax} s`);
    });
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text;
      if (output.length <= limits.yaraOutputBytesMax) return;
      child.kill('SIGKILL');
      refuse(`yara printed more than ${limits.yaraOutputBytesMax} characters`);
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      problem = (problem + text).slice(0, 2000);
    });
    child.once('error', (cause: NodeJS.ErrnoException) => {
      cancel();
      refuse(cause.code === 'ENOENT' ? `the program ${program} is not installed` : cause.message, cause);
    });
    child.once('close', (status) => {
      cancel();
      // The path of a rule file is the operator's, what is in it may be anybody's.
      if (status === 0) resolve(output);
      else refuse(`yara ended with ${status}: ${printableLine(problem, 300)}`);
    });
  });
}
