/**
 * One run's journal: append, sync, replay. A single writer, a file in the run's own folder, one line per entry:
 *
 *   <first 16 hex digits of the SHA-256 of the JSON> <canonical JSON>\n
 *
 * A crash can only tear the last line; it was never acted upon and is ignored. Damage anywhere else is corruption and
 * is reported, never skipped. Lines survive the death of the process at once; `sync` lines also a power cut.
 */
import { join } from 'node:path';
import type { Disk } from '../core/disk.ts';
import { canonicalJson, digestOf } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import type { JournalEntry } from './entry.ts';

const JOURNAL_FILE = 'journal';

export interface Journal {
  /** The run's folder. */
  readonly folder: string;
  /** Resolves when the line is written; entries keep the order of the calls. */
  append(entry: JournalEntry, options?: { readonly sync: boolean }): Promise<void>;
  /** The run is over and sealed: its folder goes. */
  remove(): Promise<void>;
}

export async function openJournal(disk: Disk, folder: string): Promise<Journal> {
  await disk.makeFolder(folder);
  const path = join(folder, JOURNAL_FILE);
  let last: Promise<void> = Promise.resolve();
  return {
    folder,
    append(entry, options = { sync: false }) {
      // After a failed append the file may end in half a line, and nothing may follow it: the failure stays.
      last = last.then(() => disk.append(path, encodeEntry(entry), options));
      last.catch(() => {});
      return last;
    },
    remove: () => disk.remove(folder),
  };
}

function encodeEntry(entry: JournalEntry): Buffer {
  const json = canonicalJson(entry);
  return Buffer.from(`${checksum(json)} ${json}\n`);
}

function checksum(json: string): string {
  return digestOf(json).slice('sha256:'.length, 'sha256:'.length + 16);
}

export type Replay =
  | { readonly ok: true; readonly entries: readonly JournalEntry[]; readonly torn: boolean }
  | { readonly ok: false; readonly line: number };

/** Pure: from bytes to entries. */
export function replayJournal(bytes: Buffer): Replay {
  const lines = bytes.toString('utf8').split('\n');
  const tail = lines.pop() ?? '';
  const entries: JournalEntry[] = [];
  for (const [index, line] of lines.entries()) {
    const json = line.slice(17);
    if (line.slice(0, 17) !== `${checksum(json)} `) return { ok: false, line: index + 1 };
    entries.push(JSON.parse(json) as JournalEntry);
  }
  return { ok: true, entries, torn: tail !== '' };
}

/** Rejects only as the disk does; a folder without a journal has no entries. */
export async function readJournal(disk: Disk, folder: string): Promise<Replay> {
  const path = join(folder, JOURNAL_FILE);
  if (!(await disk.exists(path))) return { ok: true, entries: [], torn: false };
  return replayJournal(await disk.read(path, limits.journalBytesMax));
}
