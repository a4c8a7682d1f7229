/** What is kept of runs, opened for whoever looks back: the evidence with the key that it is checked by, snapshots. */
import { createPublicKey } from 'node:crypto';
import { join } from 'node:path';
import type { AppOptions } from './order.ts';
import type { VerifyEvidence } from './evidence/read.ts';
import { Forensics } from './forensics.ts';
import { keyIdOf, parsePublicKey } from './image/envelope.ts';
import { openKeys } from './image/keys.ts';
import type { Intel } from './intel/intel.ts';

/** A public key in PEM, and where it came from. */
export interface GivenKey {
  readonly pem: Buffer;
  readonly from: string;
}

/** Rejects with E_IMAGE_KEY. */
export async function openEvidence({ home, disk, random }: AppOptions, key?: GivenKey): Promise<VerifyEvidence> {
  const known = key === undefined
    ? createPublicKey(await openKeys(home, random).ownPublic())
    : parsePublicKey(key.pem, key.from);
  return { disk, folder: join(home, 'evidence'), keys: new Map([[keyIdOf(known), known]]) };
}

/** For the person that sudo names, where there is one. */
export async function openForensics(
  { home, clock, euid, environment, intel }: AppOptions & { readonly intel: () => Promise<Intel> },
): Promise<Forensics> {
  const sudo = Number(environment('SUDO_UID') ?? Number.NaN);
  const uid = euid === 0 && Number.isSafeInteger(sudo) ? sudo : euid;
  return new Forensics({ home, uid, clock, intel });
}
