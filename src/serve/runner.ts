/** Runs events for the service as `mayfly run` does for one: the same orders through the same App, and its pool. */
import type { App } from '../app.ts';
import type { RunOrder } from '../order.ts';
import type { AcceleratorMode } from '../clone/accelerator.ts';
import type { FunctionVersion } from '../function/version.ts';
import type { Runner, RunnerOrder } from './contract.ts';

/** Rejects when the machine cannot run clones at all. */
export async function openRunner(app: App, accelerator: AcceleratorMode): Promise<Runner> {
  const { vmm } = await app.engine(accelerator);
  const pool = await app.openPool(accelerator, () => runner.mayFill());
  const runner: Runner = {
    isolation: vmm.isolation,
    mayFill: () => true,
    async run({ tenant, version, origin, event, runId, signal }: RunnerOrder, observer) {
      const order = orderOf(version, { tenant, ip: origin.ip, principal: origin.principal }, accelerator);
      return await app.run({ ...order, event, runId, signal }, observer);
    },
    async expect(version, tenant) {
      return await app.expect({ ...orderOf(version, { tenant }, accelerator), event: Buffer.from('{}') });
    },
    keep: ({ workload }, profile, target) => pool.keep({ profile, workload }, target),
    look: () => pool.look(),
    get waiting() {
      return pool.waiting;
    },
    close: () => pool.close(),
  };
  return runner;
}

interface Source {
  readonly tenant: string;
  readonly ip?: string;
  readonly principal?: string;
}

function orderOf(
  { manifest, workload, rules }: FunctionVersion, source: Source, accelerator: AcceleratorMode,
): Omit<RunOrder, 'event'> {
  const { name, image, limits, floor, network } = manifest;
  return {
    // The manifest has named the image already, so there is no language to choose it by.
    image, language: null, workload, limits, floor, accelerator,
    ...(network === null ? {} : { network }),
    policy: { source, functionName: name, ...(rules === undefined ? {} : { rules }) },
  };
}
