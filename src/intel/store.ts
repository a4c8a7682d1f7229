/**
 * The last good copy of every feed, below MAYFLY_HOME/intel/feeds/NAME: a file of records that is never changed, and a
 * state that names it with its SHA-256. A pull writes a new file and then the state, so a crash leaves the old copy.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import type { Disk } from '../core/disk.ts';
import { MayflyError } from '../core/errors.ts';
import { limits } from '../core/limits.ts';
import { digestFile, writeDurably } from '../core/files.ts';
import { isObject } from '../core/json.ts';
import type { FeedState } from './feed.ts';
import type { Indicator } from './indicator.ts';
import { linesOf } from './pull.ts';
import { formatRecord, parseRecord } from './record.ts';
import type { StoredIndicator } from './record.ts';

export interface FeedStore {
  /** Undefined: nothing is remembered, or it cannot be read. */
  state(name: string): Promise<FeedState | undefined>;
  setState(name: string, state: FeedState): Promise<void>;
  /** Of the good copy, in blocks. Rejects with E_ARTEFACT_CORRUPT at the end when it is not what was stored. */
  records(name: string, state: FeedState): AsyncGenerator<StoredIndicator[]>;
  /** The good copy is there and is what was stored. */
  intact(name: string, state: FeedState): Promise<boolean>;
  /** A new copy, not yet in use. */
  write(name: string): Promise<CopyWriter>;
  /** Removes what the state does not name. */
  tidy(name: string, state: FeedState): Promise<void>;
}

export interface CopyWriter {
  add(indicator: Indicator): void;
  addRecord(record: StoredIndicator): void;
  /** Waits until what was added has left memory. */
  drain(): Promise<void>;
  /** On the medium under its own name. */
  finish(): Promise<{ readonly file: string; readonly sha256: string }>;
  abandon(): Promise<void>;
}

export function openStore(folder: string, disk: Disk): FeedStore {
  const path = (name: string, file: string): string => join(folder, 'feeds', name, file);
  return {
    async state(name) {
      try {
        return checkedState(
          JSON.parse((await disk.read(path(name, 'state.json'), limits.intelStateBytesMax)).toString('utf8')),
        );
      } catch {
        return undefined;
      }
    },
    async setState(name, state) {
      await disk.makeFolder(path(name, ''));
      await writeDurably(path(name, 'state.json'), `${JSON.stringify(state, null, 2)}\n`, 0o600);
    },
    records: (name, state) => readRecords(path(name, state.file), state),
    async intact(name, state) {
      if (state.file === '') return false;
      const found = await digestFile(path(name, state.file)).catch(() => undefined);
      return found?.digest === `sha256:${state.sha256}`;
    },
    async write(name) {
      await disk.makeFolder(path(name, ''));
      return await openWriter(disk, (file) => path(name, file));
    },
    async tidy(name, state) {
      for (const file of await disk.list(path(name, ''))) {
        if (file !== 'state.json' && file !== state.file) await disk.remove(path(name, file));
      }
    },
  };
}

function checkedState(value: unknown): FeedState | undefined {
  if (!isObject(value) || value['stateVersion'] !== 1) return undefined;
  const { file, sha256, count, freshAt } = value;
  const usable =
    typeof file === 'string' &&
    /^(good-[0-9a-f]{16}\.tsv)?$/.test(file) &&
    typeof sha256 === 'string' &&
    Number.isInteger(count) &&
    Number.isInteger(freshAt);
  // A state of an earlier version has no schedule yet.
  const schedule = { signedAt: 0, attemptedAt: 0, failures: 0 };
  return usable ? { ...schedule, ...(value as unknown as FeedState) } : undefined;
}

/** Small enough that reading a copy never holds up an evaluation for more than a few milliseconds. */
const READ_BYTES = 128 * 1024;

async function* readRecords(path: string, { sha256 }: FeedState): AsyncGenerator<StoredIndicator[]> {
  const hash = createHash('sha256');
  async function* hashed(): AsyncGenerator<Buffer> {
    for await (const chunk of createReadStream(path, { highWaterMark: READ_BYTES }) as AsyncIterable<Buffer>) {
      hash.update(chunk);
      yield chunk;
    }
  }
  for await (const lines of linesOf(hashed(), () => {})) {
    yield lines.map(parseRecord).filter((record) => record !== undefined);
  }
  if (hash.digest('hex') !== sha256) throw new MayflyError('E_ARTEFACT_CORRUPT', `${path} is not what was stored`);
}

const FLUSH_UNITS = 256 * 1024;

async function openWriter(disk: Disk, path: (file: string) => string): Promise<CopyWriter> {
  const incoming = path('incoming.tsv');
  const file = await open(incoming, 'w', 0o600);
  const hash = createHash('sha256');
  let lines: string[] = [];
  let units = 0;
  const push = (line: string): void => {
    lines.push(line);
    units += line.length + 1;
  };
  const flush = async (): Promise<void> => {
    if (lines.length === 0) return;
    const bytes = Buffer.from(`${lines.join('\n')}\n`);
    [lines, units] = [[], 0];
    hash.update(bytes);
    await file.writeFile(bytes);
  };
  return {
    add: (indicator) => push(formatRecord(indicator)),
    addRecord: ({ labels, ...record }) =>
      push(formatRecord({ ...record, labels: labels === '' ? [] : labels.split(',') })),
    async drain() {
      if (units >= FLUSH_UNITS) await flush();
    },
    async finish() {
      await flush();
      await file.sync();
      await file.close();
      const sha256 = hash.digest('hex');
      const name = `good-${sha256.slice(0, 16)}.tsv`;
      await rename(incoming, path(name));
      return { file: name, sha256 };
    },
    async abandon() {
      await file.close();
      await disk.remove(incoming);
    },
  };
}

/** Undefined when there is no configuration. */
export async function readConfigText(folder: string): Promise<string | undefined> {
  const path = join(folder, 'feeds.yaml');
  const bytes = await readFile(path).catch(() => undefined);
  if (bytes === undefined || bytes.length <= limits.intelConfigBytesMax) return bytes?.toString('utf8');
  throw new MayflyError(
    'E_INTEL_CONFIG',
    `feeds.yaml: ${bytes.length} bytes; the limit is ${limits.intelConfigBytesMax}`,
  );
}
