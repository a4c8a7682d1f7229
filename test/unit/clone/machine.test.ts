/**
 * Goal: the guest always has a clock to measure its processor with and a tick to wait for. Without both Linux waits for
 * ever in early boot, now and then (docs/decisions/0013). Method: the machine's own arguments.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { machineArguments } from '../../../src/clone/vmm/machine.ts';

for (const accelerator of ['kvm', 'tcg'] as const) {
  test(`${accelerator}: the machine has its timers, and the kernel is not told to do without`, () => {
    const args = machineArguments({ accelerator, ramBytes: 2 ** 28, role: 'template', readOnlyRam: false, layers: 0 });
    const machine = args[args.indexOf('-machine') + 1] ?? '';
    assert.equal(machine.split(',')[0], 'q35');
    assert.doesNotMatch(args.join(' '), /microvm|pit=off|hpet=off|no_timer_check|acpi=off|-no-hpet|-no-acpi/);
  });
}
