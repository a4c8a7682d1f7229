/** The thread of snapshot-thread.ts: reads the good copies, builds the index, hands it over and ends. */
import { parentPort, workerData } from 'node:worker_threads';
import { createDisk } from '../core/disk.ts';
import { buffersOf } from './index.ts';
import { buildParts } from './snapshot.ts';
import type { SnapshotOrder } from './snapshot-thread.ts';
import { openStore } from './store.ts';

const { folder, ...order } = workerData as SnapshotOrder;
const built = await buildParts({ ...order, store: openStore(folder, createDisk()) });
parentPort?.postMessage(built, buffersOf(built.parts));
