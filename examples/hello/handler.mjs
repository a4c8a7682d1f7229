// Runs once, in a VM of its own, on one event.
import { randomUUID } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';

export default async function handler(event, context) {
  const footprint = '/tmp/i-was-here';
  const usedBefore = existsSync(footprint);
  writeFileSync(footprint, context.runId);
  console.log(`hello from the inside: run ${context.runId}`);
  return {
    greeting: `Hello, ${event.data.name ?? 'world'}!`,
    vm: {
      usedBefore,
      machineId: readFileSync('/etc/machine-id', 'utf8').trim(),
      random: Math.random(),
      uuid: randomUUID(),
    },
  };
}
