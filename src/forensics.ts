/**
 * Snapshots as the command line uses them: every look at one needs a role and is written down, and what is found in one
 * is looked up in the threat feeds and searched with the YARA rules of this home.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { requireRole } from './access.ts';
import type { AccessOptions, Role } from './access.ts';
import { MayflyError } from './core/errors.ts';
import { limits } from './core/limits.ts';
import type { EgressReport } from './egress/report.ts';
import { analyse, byWhom, compareAnalyses } from './forensics/analyse.ts';
import type { Analysis } from './forensics/analyse.ts';
import { writeCore } from './forensics/core.ts';
import type { GuestMemory } from './forensics/guest/memory.ts';
import { isfText, makeIsf } from './forensics/kernel/isf.ts';
import { checkFiles, readDetails, readKernel, readMemory } from './forensics/open.ts';
import type { Details } from './forensics/open.ts';
import { findSnapshot, hold, liftHold, listSnapshots, purgeSnapshots, removeSnapshot } from './forensics/store.ts';
import type { Purged, StoredSnapshot } from './forensics/store.ts';
import { inspect } from './intel/content.ts';
import type { Intel } from './intel/intel.ts';

export interface ForensicsOptions extends AccessOptions {
  intel(): Promise<Intel>;
}

/** What the threat feeds and YARA rules of this home say to what was found. */
export interface Findings {
  readonly indicators: readonly string[];
  readonly yara: readonly string[];
  readonly notes: readonly string[];
}

export interface Examined {
  readonly analysis: Analysis;
  readonly findings: Findings;
}

export class Forensics {
  readonly #options: ForensicsOptions;

  constructor(options: ForensicsOptions) {
    this.#options = options;
  }

  /** Everybody may know which there are: manifests have nothing of the event in them. */
  async list(): Promise<StoredSnapshot[]> {
    return await listSnapshots(this.#options.home);
  }

  /** Rejects with E_ACCESS_DENIED, E_FORENSICS_UNKNOWN, E_FORENSICS_KEY or E_FORENSICS_CORRUPT. */
  async examine(runId: string): Promise<Examined> {
    const { home } = this.#options;
    const snapshot = await this.#open('analyst', runId);
    const [details, memory, kernel] = await Promise.all([
      readDetails(home, snapshot), readMemory(home, snapshot), readKernel(home, snapshot.manifest.kernel),
    ]);
    const typeOf = async (content: Buffer): Promise<string> => (await inspect(content, { name: '', type: '' })).type;
    const analysis = await analyse({ snapshot, details, memory, kernel, typeOf });
    return { analysis, findings: await this.#search(analysis, memory) };
  }

  /** What the run itself had said: event, code, log, connections. */
  async details(runId: string): Promise<Details> {
    return await readDetails(this.#options.home, await this.#open('analyst', runId));
  }

  async compare(one: string, two: string): Promise<string[]> {
    return compareAnalyses((await this.examine(one)).analysis, (await this.examine(two)).analysis);
  }

  /** Into a new folder. Resolves to the names of what was written. */
  async export(runId: string, folder: string): Promise<string[]> {
    const { home } = this.#options;
    const snapshot = await this.#open('analyst', runId);
    const { manifest } = snapshot;
    const memory = await readMemory(home, snapshot);
    const kernel = await readKernel(home, manifest.kernel);
    await mkdir(folder, { mode: 0o700 }).catch((cause: NodeJS.ErrnoException) => {
      throw new MayflyError('E_USAGE', `${folder}: it must be a new folder (${cause.code})`, { cause });
    });
    await writeCore(join(folder, 'memory.elf'), memory, `Mayfly ${runId}`);
    await mkdir(join(folder, 'symbols', 'linux'), { recursive: true, mode: 0o700 });
    await writeFile(join(folder, 'symbols', 'linux', 'mayfly.json'), isfText(makeIsf(kernel)), { mode: 0o600 });
    const { analysis, findings } = await this.examine(runId);
    await writeFile(join(folder, 'report.json'), jsonOf({ analysis, findings }), { mode: 0o600 });
    await writeFile(join(folder, 'details.json'), JSON.stringify(analysis.details, null, 2), { mode: 0o600 });
    for (const [path, content] of analysis.contents) {
      // Names are the guest's: none of them leaves the folder, none is executable here.
      const parts = path.split('/').filter((part) => part !== '' && part !== '.' && part !== '..');
      const safe = join(folder, 'files', ...parts);
      await mkdir(dirname(safe), { recursive: true, mode: 0o700 });
      await writeFile(safe, content, { mode: 0o600, flag: 'wx' });
    }
    return ['memory.elf', 'symbols/linux/mayfly.json', 'report.json', 'details.json', 'files/'];
  }

  async hold(runId: string, because: string | undefined): Promise<void> {
    const snapshot = await this.#open('custodian', runId);
    if (because === undefined) await liftHold(snapshot);
    else await hold(snapshot, because);
  }

  /** One snapshot, or all that have expired. */
  async purge(runId: string | undefined): Promise<Purged> {
    const { home, clock } = this.#options;
    if (runId === undefined) {
      await requireRole(this.#options, 'custodian', 'purge');
      return await purgeSnapshots(home, Number(clock.wallNanos() / 1_000_000n));
    }
    const snapshot = await this.#open('custodian', runId);
    await removeSnapshot(snapshot);
    return { removed: [runId], held: [], bytes: snapshot.bytes };
  }

  async #open(role: Role, runId: string): Promise<StoredSnapshot> {
    await requireRole(this.#options, role, `snapshot ${runId}`);
    const snapshot = await findSnapshot(this.#options.home, runId);
    await checkFiles(snapshot);
    return snapshot;
  }

  async #search(analysis: Analysis, memory: GuestMemory): Promise<Findings> {
    const intel = await this.#options.intel();
    const network = analysis.details['network'] as EgressReport | null;
    const names = (network?.flows ?? []).flatMap(({ name, address }) => [name, address]);
    const asked = (network?.queries ?? []).map(({ name }) => name);
    const digests = analysis.files.map(({ digest }) => digest?.slice('sha256:'.length));
    const changed = Buffer.concat([...memory.changed.values()]).subarray(0, limits.guestSearchBytesMax);
    const value = { names: [...names, ...asked, ...digests].filter((text) => text), strings: stringsOf(changed) };
    const { assessment } = await intel.assess({ value, bytes: changed.length });
    const items = [
      ...[...analysis.contents].map(([where, content]) => ({ where, content })),
      { where: 'changed memory', content: changed },
    ];
    const { hits, notes } = await intel.scan(items);
    return {
      indicators: assessment.matches.map(({ kind, observable, source, where }) => {
        return `${kind} ${observable}, listed by ${source}, seen in ${where}`;
      }),
      yara: hits.map(({ rule, where }) => `${rule} in ${where}`),
      notes,
    };
  }
}

/** Printable texts that may be a name, an address or a hash, each once, one a line. */
function stringsOf(bytes: Buffer): string[] {
  const found = new Set<string>();
  let units = 0;
  for (const [text] of bytes.toString('latin1').matchAll(/[ -~]{6,2000}/g)) {
    if (!/[\w-]\.[\w-]|@|::|[0-9a-f]{32}/i.test(text) || found.has(text)) continue;
    units += text.length;
    if (units > limits.guestTextUnitsMax) break;
    found.add(text);
  }
  return [[...found].join('\n')];
}

export { byWhom };

/** Everything but contents, as JSON. */
export function jsonOf({ analysis, findings }: Examined): string {
  const { contents: _contents, details, snapshot, ...rest } = analysis;
  const { manifest, digest, hold: held, bytes } = snapshot;
  const { event: _event, workload: _workload, stdout: _stdout, stderr: _stderr, ...told } = details;
  const plain = { manifest, digest, hold: held, bytes, ...rest, findings, run: told };
  return JSON.stringify(plain, (_key, value: unknown) => (typeof value === 'bigint' ? String(value) : value), 2);
}
