/**
 * Packages of the distribution as a source of files: resolved and fetched by apt, which verifies signatures and
 * digests, and unpacked without being installed and without running any of their scripts.
 */
import { mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { MayflyError } from '../../src/core/errors.ts';
import { digestFile } from '../../src/core/files.ts';
import { attempt, pipe, run } from './command.ts';
import type { CommandOptions } from './command.ts';
import type { Say } from './workshop.ts';

/** Packages of one closure: a guard against a graph that never ends. The image `python` has about 30. */
const CLOSURE_MAX = 500;

export interface DebianPackage {
  readonly name: string;
  readonly version: string;
  /** Absolute path of the .deb file; its digest is what apt's signed index says. */
  readonly file: string;
}

export interface AptOptions {
  /** Folder for .deb files and, without root, for apt's own lists. */
  readonly cache: string;
  /** Runs apt-get with root's rights; undefined when there are none. */
  readonly asRoot: readonly string[] | undefined;
  readonly signal: AbortSignal;
}

export interface Apt {
  /** The packages and what they depend on, without `without` and what only those need. Sorted. */
  closure(roots: readonly string[], without: readonly string[], say: Say): Promise<string[]>;
  fetch(names: readonly string[], say: Say): Promise<DebianPackage[]>;
}

export function openApt({ cache, asRoot, signal }: AptOptions): Apt {
  const packages = join(cache, 'packages');
  /** Options that make apt use lists of its own: a user who is not root can refresh no others. */
  let own: string[] = [];
  let refreshed = false;

  async function refresh(say: Say): Promise<void> {
    refreshed = true;
    say('refreshing the list of packages');
    if (asRoot !== undefined) {
      // A third-party source that is down must not stop what does not come from it: the caller's next try decides.
      await attempt([...asRoot, 'apt-get', 'update'], { signal, inherit: true });
      return;
    }
    const state = join(cache, 'apt');
    await mkdir(join(state, 'lists', 'partial'), { recursive: true });
    await mkdir(join(state, 'archives', 'partial'), { recursive: true });
    own = ['-o', `Dir::State::lists=${join(state, 'lists')}`, '-o', `Dir::Cache=${state}`];
    await attempt(['apt-get', ...own, 'update'], { signal, inherit: true });
  }

  /** apt with the lists there are, and once more with fresh ones: old lists name files that mirrors have deleted. */
  async function ask(command: readonly string[], say: Say, options: CommandOptions = {}): Promise<string> {
    const [program = '', ...args] = command;
    const first = await attempt([program, ...own, ...args], { ...options, signal, inherit: true });
    if (first.status === 0) return first.stdout;
    if (!refreshed) await refresh(say);
    return await run([program, ...own, ...args], { ...options, signal, inherit: true });
  }

  return {
    async closure(roots, without, say) {
      say('resolving packages');
      const kinds = ['recommends', 'suggests', 'conflicts', 'breaks', 'replaces', 'enhances'];
      const others = kinds.map((it) => `--no-${it}`);
      const text = await ask(['apt-cache', 'depends', '--recurse', ...others, ...roots], say);
      return closureOf(parseDepends(text), roots, without);
    },
    async fetch(names, say) {
      await mkdir(packages, { recursive: true });
      const files = parseUris(await ask(['apt-get', 'download', '--print-uris', ...names], say));
      const missing: AptFile[] = [];
      for (const file of files) {
        const there = await digestFile(join(packages, file.file)).catch(() => undefined);
        if (there?.digest !== file.digest) missing.push(file);
      }
      if (missing.length > 0) {
        const bytes = missing.reduce((sum, file) => sum + file.bytes, 0);
        say(`fetching ${missing.length} packages, ${(bytes / 1e6).toFixed(1)} MB`);
        const halves = join(packages, 'half');
        await rm(halves, { recursive: true, force: true });
        await mkdir(halves);
        const exact = missing.map((file) => `${file.name}=${file.version}`);
        await ask(['apt-get', 'download', ...exact], say, { cwd: halves });
        for (const file of missing) {
          const { digest } = await digestFile(join(halves, file.file));
          if (digest !== file.digest) throw new MayflyError('E_ARTEFACT_CORRUPT', `${file.file} came as ${digest}`);
          await rename(join(halves, file.file), join(packages, file.file));
        }
        await rm(halves, { recursive: true, force: true });
      }
      return files.map(({ name, version, file }) => ({ name, version, file: join(packages, file) }));
    },
  };
}

/** Unpacks into a folder whose links (`lib` to `usr/lib`) are followed; `exclude` are tar's patterns. */
export async function unpack(
  deb: DebianPackage,
  folder: string,
  exclude: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  await pipe(
    ['dpkg-deb', '--fsys-tarfile', deb.file],
    [
      'tar', '--extract', '--directory', folder, '--keep-directory-symlink', '--no-same-owner',
      '--preserve-permissions', '--warning=no-timestamp', '--wildcards',
      ...exclude.map((pattern) => `--exclude=${pattern}`),
    ],
    signal,
  );
}

interface AptFile extends DebianPackage {
  readonly bytes: number;
  readonly digest: string;
}

/** `apt-get download --print-uris`: `'URI' name_version_arch.deb bytes SHA256:hex` per line. */
export function parseUris(text: string): AptFile[] {
  const files: AptFile[] = [];
  for (const line of text.split('\n')) {
    const found = /^'[^']*' (([^_ /]+)_([^_ /]+)_[^_ /]+\.deb) ([0-9]+) SHA256:([0-9a-f]{64})$/.exec(line);
    if (found === null) continue;
    const [, file = '', name = '', version = '', bytes = '', hex = ''] = found;
    files.push({ name, version: decodeURIComponent(version), file, bytes: Number(bytes), digest: `sha256:${hex}` });
  }
  return files.sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** Package to what it depends on. Of alternatives the first counts, of a virtual package its first provider. */
export type Graph = ReadonlyMap<string, readonly string[]>;

/** `apt-cache depends --recurse`. */
export function parseDepends(text: string): Graph {
  const graph = new Map<string, string[]>();
  let needs: string[] = [];
  /** The line before was an alternative (`|Depends`), so this one is not wanted. */
  let decided = false;
  let virtual = false;
  for (const line of text.split('\n')) {
    const head = /^([^\s<]\S*)$/.exec(line);
    const need = /^[ |]*(?:Pre)?Depends: (<?)([^>\s]+)/.exec(line);
    const provider = /^ {4}(\S+)$/.exec(line);
    if (head?.[1] !== undefined) {
      needs = [];
      graph.set(head[1], needs);
      decided = virtual = false;
    } else if (need?.[2] !== undefined) {
      const open = !decided;
      decided = line.trimStart().startsWith('|');
      virtual = open && need[1] === '<';
      if (open && !virtual) needs.push(need[2]);
    } else if (provider?.[1] !== undefined && virtual) {
      needs.push(provider[1]);
      virtual = false;
    }
  }
  return graph;
}

export function closureOf(graph: Graph, roots: readonly string[], without: readonly string[]): string[] {
  const cut = new Set(without);
  const found = new Set<string>();
  const waiting = [...roots];
  for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
    if (found.has(name) || cut.has(name)) continue;
    found.add(name);
    if (found.size > CLOSURE_MAX) throw new Error(`more than ${CLOSURE_MAX} packages in one image`);
    waiting.push(...(graph.get(name) ?? []));
  }
  return [...found].sort();
}
