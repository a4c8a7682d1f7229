/**
 * What happened in a clone, for a person who has to know: processes, files, connections, log and changed memory, in
 * one order of time. Each line says whose word it is: the host's (`host`), or that of the guest's memory (`memory`),
 * which a guest that owned its kernel could have forged.
 */
import type { EgressReport } from '../egress/report.ts';
import type { TimelineEntry } from '../evidence/record.ts';
import { MayflyError } from '../core/errors.ts';
import { limits } from '../core/limits.ts';
import { listFiles, listMounts } from './guest/files.ts';
import type { GuestFile, GuestMount } from './guest/files.ts';
import type { GuestKernel } from './guest/kernel.ts';
import { kernelLog } from './guest/log.ts';
import { censusOf } from './guest/pages.ts';
import type { PageCensus } from './guest/pages.ts';
import { findExited, listProcesses } from './guest/processes.ts';
import type { GuestProcess } from './guest/processes.ts';
import { findKernel } from './open.ts';
import type { Details, OpenedKernel } from './open.ts';
import type { GuestMemory } from './guest/memory.ts';
import type { StoredSnapshot } from './store.ts';

export interface ChangedFile extends Omit<GuestFile, 'content'> {
  readonly change: 'created' | 'changed' | 'removed';
  /** By its first bytes. */
  readonly type: string;
  /** Processes that can have written it last: of its owner, and running at that time. */
  readonly writers: readonly string[];
}

export interface Happening {
  /** Unix time, ms. */
  readonly at: number;
  readonly source: 'host' | 'memory';
  readonly what: string;
}

export interface Analysis {
  readonly snapshot: StoredSnapshot;
  readonly details: Details;
  readonly processes: readonly GuestProcess[];
  readonly mounts: readonly Omit<GuestMount, 'superblock'>[];
  readonly files: readonly ChangedFile[];
  readonly contents: ReadonlyMap<string, Buffer>;
  readonly log: readonly string[];
  readonly pages: PageCensus;
  readonly timeline: readonly Happening[];
}

export interface AnalyseInput {
  readonly snapshot: StoredSnapshot;
  readonly details: Details;
  readonly memory: GuestMemory;
  readonly kernel: OpenedKernel;
  readonly typeOf: (content: Buffer) => Promise<string>;
}

/** Rejects with E_FORENSICS_CORRUPT, also when a hostile guest has made circles of its memory. */
export async function analyse(input: AnalyseInput): Promise<Analysis> {
  try {
    return await readAll(input);
  } catch (thrown) {
    if (thrown instanceof MayflyError) throw thrown;
    const message = `the memory cannot be read as that of a kernel: ${(thrown as Error).message}`;
    throw new MayflyError('E_FORENSICS_CORRUPT', message, { cause: thrown });
  }
}

async function readAll({ snapshot, details, memory, kernel, typeOf }: AnalyseInput): Promise<Analysis> {
  const guest = findKernel(memory, kernel, details);
  const template = guest.in(memory.template(), String(details['registers'] ?? ''));
  const running = listProcesses(guest);
  const processes = [...running, ...findExited(guest, running)].filter(({ ofKernel }) => !ofKernel);
  const mounts = listMounts(guest);
  const clock = clockOf(guest);
  const now = listFiles(guest, mounts);
  const files: ChangedFile[] = [];
  const contents = new Map<string, Buffer>();
  for (const { file, change } of changes(listFiles(template, listMounts(template)), now)) {
    const { content, ...rest } = file;
    if (content !== undefined && change !== 'removed') contents.set(file.path, content);
    files.push({
      ...rest, change,
      type: content === undefined || content.length === 0 ? '' : await typeOf(content),
      writers: change === 'removed' ? [] : writersOf(file, processes, clock),
    });
  }
  const before = new Set(kernelLog(template).map(({ nanos, text }) => `${nanos} ${text}`));
  const lines = kernelLog(guest).filter(({ nanos, text }) => !before.has(`${nanos} ${text}`));
  const timeline = timelineOf({ details, processes, files, clock });
  return {
    snapshot, details, processes, files, contents, timeline,
    mounts: mounts.map(({ superblock: _superblock, ...mount }) => mount),
    log: lines.map(({ nanos, text }) => `[${(Number(nanos) / 1e9).toFixed(6)}] ${text}`),
    pages: censusOf(guest),
  };
}

// ---- files ----------------------------------------------------------------------------------------------------------

type Change = { readonly file: GuestFile; readonly change: ChangedFile['change'] };

function changes(
  before: readonly GuestFile[],
  now: readonly GuestFile[],
): Change[] {
  const old = new Map(before.map((file) => [file.path, file]));
  const found = now.flatMap((file): Change[] => {
    const was = old.get(file.path);
    old.delete(file.path);
    if (was === undefined) return [{ file, change: 'created' }];
    const kept = was.mode === file.mode && was.uid === file.uid;
    const same = kept && was.digest === file.digest && was.bytes === file.bytes;
    return same || file.kind === 'folder' ? [] : [{ file, change: 'changed' }];
  });
  const removed = [...old.values()].map((file): Change => ({ file, change: 'removed' }));
  return [...found, ...removed];
}

/**
 * Nanoseconds from the guest's monotonic clock to Unix time; undefined when the kernel does not say anything likely.
 */
function clockOf(kernel: GuestKernel): bigint | undefined {
  const keeper = kernel.symbol('tk_core');
  for (const lead of [8n, 64n]) {
    const offset = kernel.number(keeper + lead, 'timekeeper', 'offs_real');
    if (offset > 1_000_000_000_000_000_000n && offset < 4_000_000_000_000_000_000n) return offset;
  }
  return undefined;
}

function writersOf(file: GuestFile, processes: readonly GuestProcess[], clock: bigint | undefined): string[] {
  const able = processes.filter(({ uid, startedNanos, pid }) => {
    const since = clock === undefined ? 0 : Number((startedNanos + clock) / 1_000_000n);
    return uid === file.uid && pid !== 1 && since <= file.changedMillis + 1_000;
  });
  return able.map(({ pid, name }) => `${pid} ${name}`);
}

// ---- time -----------------------------------------------------------------------------------------------------------

interface TimelineInput {
  readonly details: Details;
  readonly processes: readonly GuestProcess[];
  readonly files: readonly ChangedFile[];
  readonly clock: bigint | undefined;
}

function timelineOf({ details, processes, files, clock }: TimelineInput): Happening[] {
  const accepted = Date.parse(String(details['acceptedAt'] ?? ''));
  const stages = (Array.isArray(details['timeline']) ? details['timeline'] : []) as TimelineEntry[];
  const delivered = stages.find(({ stage }) => stage === 'execute')?.at ?? 0;
  const network = details['network'] as EgressReport | null;
  const happened: Happening[] = [
    ...stages.map(({ stage, at, millis }): Happening => (
      { at: accepted + at, source: 'host', what: `${stage} begins, takes ${millis.toFixed(1)} ms` }
    )),
    ...(network?.flows ?? []).map(({ at, verdict, name, address, port, because }): Happening => {
      const what = `connection to ${name ?? address}:${port}: ${verdict}, ${because}`;
      return { at: accepted + delivered + at, source: 'host', what };
    }),
    ...files.filter(({ change }) => change !== 'removed').map(({ path, change, changedMillis, writers }): Happening => (
      { at: changedMillis, source: 'memory', what: `${path} ${change}${byWhom(writers)}` }
    )),
    ...(clock === undefined ? [] : processes.map(({ pid, name, startedNanos, parent }): Happening => {
      const at = Number((startedNanos + clock) / 1_000_000n);
      return { at, source: 'memory', what: `process ${pid} ${name} begins, of ${parent}` };
    })),
  ];
  return happened.filter(({ at }) => Number.isFinite(at)).sort((a, b) => a.at - b.at).slice(0, limits.guestLogLinesMax);
}

/** A process that has left nothing in the memory can have done it as well. */
export function byWhom(writers: readonly string[]): string {
  return writers.length === 0 ? '' : `, by ${writers.slice(0, 3).join(' or ')} or a child that is gone`;
}

// ---- difference -----------------------------------------------------------------------------------------------------

/** What one clone did and the other did not, a line each. */
export function compareAnalyses(one: Analysis, two: Analysis): string[] {
  const lines: string[] = [];
  const only = (what: string, a: readonly string[], b: readonly string[]): void => {
    for (const item of a.filter((each) => !b.includes(each))) lines.push(`- ${what} ${item}`);
    for (const item of b.filter((each) => !a.includes(each))) lines.push(`+ ${what} ${item}`);
  };
  const fileOf = ({ path, change, digest, bytes }: ChangedFile): string =>
    `${path} ${change}, ${bytes} bytes, ${digest ?? 'no digest'}`;
  const flowsOf = ({ details }: Analysis): string[] => ((details['network'] as EgressReport | null)?.flows ?? [])
    .map(({ name, address, port, verdict }) => `${name ?? address}:${port} ${verdict}`);
  only('file', one.files.map(fileOf), two.files.map(fileOf));
  const names = (analysis: Analysis): string[] => analysis.processes.map(({ name, uid }) => `${name} of uid ${uid}`);
  only('process', names(one), names(two));
  only('connection', flowsOf(one), flowsOf(two));
  const kinds = ({ pages }: Analysis): string[] =>
    Object.entries(pages.kinds).map(([kind, count]) => `${kind}: ${count}`);
  only('changed pages', kinds(one), kinds(two));
  return lines;
}
