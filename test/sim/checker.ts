/**
 * Looks at a simulated host after the fact and says what is wrong with it. It shares no code with the product: it reads
 * the raw files, hashes lines itself and asks the machines directly.
 */
import { createHash } from 'node:crypto';
import type { World } from './world.ts';
import { HOME } from './world.ts';

interface Line {
  readonly runId: string;
  readonly sequence: number;
  readonly previous: string;
  readonly delivered: boolean;
  readonly verdict: { readonly kind: string; readonly code?: string };
  readonly release: { readonly verified: boolean };
}

export function evidenceOf(world: World): Line[] {
  const text = world.disk.files.get(`${HOME}/evidence/evidence.jsonl`)?.toString('utf8') ?? '';
  return text.split('\n').filter((line) => line !== '').map((line) => JSON.parse(line) as Line);
}

/** Every sentence is a broken promise; none is what is wanted. `accepted`: events that must have their evidence. */
export function complaints(world: World, accepted: number): string[] {
  const found: string[] = [];
  for (const machine of world.everyMachine()) {
    if (machine.alive) found.push(`machine ${machine.identity.pid} is alive`);
  }
  for (const path of [...world.disk.folders, ...world.disk.files.keys()]) {
    if (path.startsWith(`${HOME}/run/`)) found.push(`${path} is left`);
  }
  if (world.disk.locks.size > 0) found.push('the evidence is locked');
  const deliveries = world.everyMachine().reduce((sum, machine) => sum + machine.deliveries, 0);
  if (deliveries > accepted) found.push(`${accepted} events were delivered ${deliveries} times`);
  const lines = evidenceOf(world);
  if (lines.length !== accepted) found.push(`${lines.length} evidence records for ${accepted} accepted events`);
  if (new Set(lines.map(({ runId }) => runId)).size !== lines.length) found.push('a run has two evidence records');
  if (lines.filter(({ delivered }) => delivered).length < deliveries) found.push('a delivery is not in the evidence');
  found.push(...chainComplaints(world));
  return found;
}

function chainComplaints(world: World): string[] {
  const text = world.disk.files.get(`${HOME}/evidence/evidence.jsonl`)?.toString('utf8') ?? '';
  const lines = text.split('\n');
  if (lines.pop() !== '') return ['the evidence ends in half a line'];
  let previous = `sha256:${'0'.repeat(64)}`;
  for (const [index, line] of lines.entries()) {
    const record = JSON.parse(line) as Line;
    if (record.sequence !== index || record.previous !== previous) return [`the chain breaks at line ${index + 1}`];
    previous = `sha256:${createHash('sha256').update(line).digest('hex')}`;
  }
  return [];
}
