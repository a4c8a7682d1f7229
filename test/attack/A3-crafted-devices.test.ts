/**
 * A3: a guest kernel that is in the attacker's hands writes to virtqueues, device registers, ports and PCI
 * configuration what no driver writes: descriptor loops, addresses of devices and of nothing, lengths of 4 GiB,
 * requests of unknown types, fw_cfg's DMA. Expected: the VMM dies at worst, the guest or its function is blamed, its
 * memory stays bounded, nothing of it is left, and a neighbour does not notice. Method: guest/hostile.c in a real VM.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { isAlive, mebibyte, ramBytes } from '../vm/rig.ts';
import { openHostileGuest } from './hostile.ts';
import type { Aftermath, HostileGuest } from './hostile.ts';

/** QEMU itself with its translation cache: what it may have beside the guest's RAM, bytes. */
const OVERHEAD = 512 * mebibyte;

let guest: HostileGuest;
before(async () => { guest = await openHostileGuest(); });
after(async () => { await guest?.close(); });

async function attackBesideNeighbour(kind: string): Promise<Aftermath & { readonly peakBytes: number }> {
  let peakBytes = 0;
  let poll: NodeJS.Timeout | undefined;
  const watch = ({ identity }: { readonly identity: { readonly pid: number } }): void => {
    poll = setInterval(() => {
      try {
        const peak = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${identity.pid}/status`, 'utf8'))?.[1];
        peakBytes = Math.max(peakBytes, Number(peak ?? 0) * 1024);
      } catch {
        clearInterval(poll);
      }
    }, 50);
  };
  const attacked = guest.attack(kind, { watch, wallMillis: 10_000 });
  const [aftermath, neighbour] = await Promise.all([attacked, guest.neighbour()]);
  clearInterval(poll);
  assert.equal(neighbour.verdict.kind, 'accepted', JSON.stringify(neighbour.verdict));
  assert.equal(neighbour.state, 'sealed');
  return { ...aftermath, peakBytes };
}

const attacks = [
  // What QEMU says about it stands at the end of the console.
  ['queues', /rounds of queues|bogus descriptor|Cannot map desc/], ['ports', /rounds of ports/],
  ['config', /begins config/],
] as const;

for (const [kind, begun] of attacks) {
  test(`a storm of hostile ${kind}`, async (t) => {
    const { outcome, machines, console, exit, diedByItself, peakBytes } = await attackBesideNeighbour(kind);
    const { verdict } = outcome;
    const peakMiB = Math.round(peakBytes / mebibyte);
    t.diagnostic(`${JSON.stringify(verdict).slice(0, 200)}; VMM ${JSON.stringify(exit)}, peak ${peakMiB} MiB`);
    assert.ok(diedByItself || begun.test(console), `the attack did not happen: ${console.slice(-400)}`);
    assert.ok(verdict.kind === 'failed');
    assert.notEqual(verdict.blame, 'host', verdict.message);
    assert.equal(outcome.state, 'sealed');
    assert.deepEqual(outcome.release.left, []);
    assert.equal(machines.length, 1, 'no second try after delivery');
    assert.ok(machines[0] !== undefined && !(await isAlive(machines[0].identity)));
    assert.ok(peakBytes > 0 && peakBytes < ramBytes + OVERHEAD, `${peakMiB} MiB`);
  });
}
