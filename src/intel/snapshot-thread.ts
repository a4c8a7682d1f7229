/** Builds a large snapshot in a thread of its own: the columns of the index are handed over, not copied. */
import { Worker } from 'node:worker_threads';
import { MayflyError } from '../core/errors.ts';
import { limits } from '../core/limits.ts';
import { within } from '../core/time.ts';
import type { Clock } from '../core/time.ts';
import type { FeedsConfig } from './feed.ts';
import { snapshotOf } from './snapshot.ts';
import type { IntelSnapshot, SnapshotParts } from './snapshot.ts';

/** What the thread is told; what it does with it is in snapshot-worker.ts. */
export interface SnapshotOrder {
  /** MAYFLY_HOME/intel. */
  readonly folder: string;
  readonly config: FeedsConfig;
  readonly nowSeconds: number;
  readonly seed: number;
}

/** Rejects with E_INTEL_FORMAT when it takes more time or memory than it may. */
export async function buildInThread(order: SnapshotOrder, clock: Clock): Promise<IntelSnapshot> {
  const worker = new Worker(new URL('./snapshot-worker.ts', import.meta.url), {
    workerData: order,
    env: {},
    resourceLimits: { maxOldGenerationSizeMb: limits.intelBuildHeapMiB },
  });
  const built = new Promise<SnapshotParts>((resolve, reject) => {
    worker.once('message', resolve).once('error', reject);
    worker.once('exit', (code) => reject(new Error(`its thread ended with ${code}`)));
  });
  const late = (): Error => new Error(`it took more than ${limits.intelBuildMillisMax} ms`);
  try {
    return snapshotOf(await within(clock, limits.intelBuildMillisMax, built, late));
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new MayflyError('E_INTEL_FORMAT', `the index of all feeds could not be built: ${why}`, { cause });
  } finally {
    await worker.terminate();
  }
}
