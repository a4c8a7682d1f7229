/** A snapshot, opened: its manifest believed only with its files' digests, its pages and details decrypted. */
import { join } from 'node:path';
import { MayflyError } from '../core/errors.ts';
import { digestFile, readAtMost } from '../core/files.ts';
import { isObject } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import { BASE_TENANT, decodePages } from './capture.ts';
import { GuestKernel } from './guest/kernel.ts';
import type { KernelSymbols } from './guest/kernel.ts';
import { GuestMemory } from './guest/memory.ts';
import { parseBtf } from './kernel/btf.ts';
import { parseKallsyms } from './kernel/kallsyms.ts';
import { openVmlinux } from './kernel/vmlinux.ts';
import type { StoredSnapshot } from './store.ts';
import { readKey, readSealed } from './vault.ts';

/** What the run itself had said, as src/snapshot.ts wrote it. */
export type Details = { readonly [name: string]: unknown };

export interface OpenedKernel extends KernelSymbols {
  /** As `Linux version …`, of the artefact. */
  readonly banner: string;
}

/** Rejects with E_FORENSICS_CORRUPT when a file is not what the manifest says. */
export async function checkFiles({ manifest, folder }: StoredSnapshot): Promise<void> {
  for (const { name, digest } of manifest.files) {
    const found = await digestFile(join(folder, name)).catch(() => undefined);
    if (found?.digest === digest) continue;
    throw new MayflyError('E_FORENSICS_CORRUPT', `${join(folder, name)} is not what its manifest says`);
  }
}

export async function readDetails(home: string, { manifest, folder }: StoredSnapshot): Promise<Details> {
  const key = await readKey(home, manifest.tenant);
  const pieces: Buffer[] = [];
  for await (const piece of readSealed(folder, 'details', key, `${manifest.runId} details`)) pieces.push(piece);
  const details: unknown = JSON.parse(Buffer.concat(pieces).toString('utf8'));
  if (!isObject(details)) throw new MayflyError('E_FORENSICS_CORRUPT', `${folder}: its details are none`);
  return details;
}

/**
 * Rejects with E_FORENSICS_CORRUPT, also when the template's memory is gone: without it there is only the difference.
 */
export async function readMemory(home: string, { manifest, folder }: StoredSnapshot): Promise<GuestMemory> {
  const { runId, template, tenant, ramBytes } = manifest;
  const changed = await pagesOf(readSealed(folder, 'memory', await readKey(home, tenant), `${runId} memory`));
  const bases = join(home, 'forensics', 'bases');
  const base = await pagesOf(readSealed(bases, template, await readKey(home, BASE_TENANT), `base ${template}`));
  return new GuestMemory(ramBytes, base, changed);
}

async function pagesOf(pieces: AsyncIterable<Buffer>): Promise<Map<number, Buffer>> {
  const pages = new Map<number, Buffer>();
  for await (const piece of pieces) decodePages(piece, (number, page) => pages.set(number, page));
  return pages;
}

/** Symbols of the guest's kernel, from the artefact that it booted. Rejects with E_ARTEFACT_CORRUPT when it is gone. */
export async function readKernel(home: string, digest: string): Promise<OpenedKernel> {
  const hex = digest.slice('sha256:'.length);
  const path = join(home, 'store', 'sha256', hex.slice(0, 2), hex);
  try {
    const { sections } = await openVmlinux(await readAtMost(path, limits.kernelBytesMax));
    const section = (name: string): (typeof sections)[number] => {
      const found = sections.find((each) => each.name === name);
      if (found === undefined) throw new Error(`the kernel has no section ${name}`);
      return found;
    };
    const data = section('.rodata');
    const symbols = parseKallsyms(data);
    const at = Number((symbols.get('linux_banner') ?? data.address) - data.address);
    const banner = data.bytes.toString('latin1', at, data.bytes.indexOf(0, at));
    return { btf: parseBtf(section('.BTF').bytes), symbols, banner };
  } catch (thrown) {
    const message = `the kernel ${digest}: ${(thrown as Error).message}`;
    throw new MayflyError('E_ARTEFACT_CORRUPT', message, { cause: thrown });
  }
}

/** The kernel in the snapshot's memory. Rejects with E_FORENSICS_CORRUPT when it is not there. */
export function findKernel(memory: GuestMemory, symbols: KernelSymbols, details: Details): GuestKernel {
  try {
    return GuestKernel.find(memory, symbols, String(details['registers'] ?? ''));
  } catch (thrown) {
    throw new MayflyError('E_FORENSICS_CORRUPT', (thrown as Error).message, { cause: thrown });
  }
}
