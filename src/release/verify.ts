/**
 * Looks whether something is still there without asking those who released it: the process table and the file system
 * answer, not the machine's own object.
 */
import type { Disk } from '../core/disk.ts';
import type { Holding } from '../journal/entry.ts';
import { isAlive } from './processes.ts';
import type { Processes } from './processes.ts';

export interface VerifyOptions {
  readonly processes: Processes;
  readonly disk: Disk;
}

/** Undefined: gone. Otherwise what was seen; also when looking failed, because then nobody knows. */
export async function remains(holding: Holding, { processes, disk }: VerifyOptions): Promise<string | undefined> {
  try {
    switch (holding.kind) {
      case 'machine':
        return (await isAlive(processes, holding.pid, BigInt(holding.startTicks))) ? 'still running' : undefined;
      case 'bridge':
        // Its other end is the machine's: with the machine gone there is nothing that it could carry.
        return undefined;
      case 'path':
        return (await disk.exists(holding.path)) ? 'still there' : undefined;
    }
  } catch (thrown) {
    return `could not be looked for: ${(thrown as Error).message}`;
  }
}
