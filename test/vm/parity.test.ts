/**
 * Goal: what simulation proves with the fake is about the real thing. Method: one suite over the VMM contract, run
 * against QEMU and against the fake: the same calls, the same answers, the same endings.
 */
import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { prepareTemplate, Session } from '../../src/bridge/session.ts';
import type { Configuration } from '../../src/bridge/session.ts';
import { compareIdentity, newIdentity } from '../../src/clone/uniqueness.ts';
import type { CompilePolicy } from '../../src/clone/policy.ts';
import type { Template } from '../../src/clone/template.ts';
import { createFake } from '../../src/clone/vmm/fake.ts';
import type { Machine, TemplateSpec, Vmm } from '../../src/clone/vmm/contract.ts';
import { MayflyError } from '../../src/core/errors.ts';
import { templatePolicyText } from '../../src/profile/apparmor.ts';
import type { RunId } from '../../src/core/ids.ts';
import { appArmorOf, filterOf } from '../../src/profile/kernel.ts';
import { compareFacts, expectedFacts } from '../../src/profile/facts.ts';
import { generateProfile } from '../../src/profile/generate.ts';
import { file } from './guest.ts';
import { clock, inFolder, openRig, ramBytes, random, workloadId } from './rig.ts';

interface Subject {
  readonly vmm: Vmm;
  readonly spec: (folder: string) => Promise<TemplateSpec>;
  readonly template: () => Promise<Pick<Template, 'state' | 'compile'>>;
  readonly compile: CompilePolicy;
  readonly runtime: { readonly argv: readonly string[]; readonly env: readonly string[] };
}

const image = { name: 'node', digest: `sha256:${'0'.repeat(64)}` };
const { profile } = generateProfile({ request: { image, limits: {}, minimumIsolation: 'tcg' }, codeBytes: 0 });
const runId = '01M86STJ5360NN5D6367KDCX7X' as RunId;
const handler = file('h.mjs', 'export default (event) => ({ got: event.data });');

const subjects: Readonly<Record<string, () => Promise<Subject>>> = {
  async qemu() {
    const rig = await openRig();
    const { runtime } = await rig.repository.images.get('node');
    return {
      vmm: rig.vmm,
      spec: (folder) => rig.spec(folder, 'node'),
      template: () => rig.template('node'),
      compile: rig.compile,
      runtime: runtime ?? { argv: [], env: [] },
    };
  },
  async fake() {
    const answer = (stdin: Buffer): Buffer => {
      const event = JSON.parse(stdin.toString().split('\n').slice(2).join('\n')) as { data: unknown };
      return Buffer.from(JSON.stringify({ ok: true, value: { got: event.data } }));
    };
    const compile: CompilePolicy = async (text, features) => Buffer.from(text + features);
    const vmm = createFake({ clock, delay: () => 1, answer });
    const spec = { kernel: '/k', initramfs: '/i', baseImage: '/b', ramBytes };
    return {
      vmm,
      spec: async (folder) => ({ folder, ...spec }),
      template: async () => ({
        state: { folder: '/t', ...spec, ram: '/t/ram', state: Buffer.from('fake') },
        compile: (text) => compile(text, 'fake'),
      }),
      compile,
      runtime: { argv: ['/usr/bin/node'], env: [] },
    };
  },
};

for (const [name, open] of Object.entries(subjects)) {
  describe(`the contract, kept by ${name}`, () => {
    let subject: Subject;
    before(async () => {
      subject = await open();
    });

    async function withMachine(work: (machine: Machine) => Promise<void>): Promise<void> {
      const machine = await subject.vmm.spawn((await subject.template()).state);
      try {
        await work(machine);
      } finally {
        await machine.kill();
      }
    }

    async function configured(machine: Machine): Promise<Session> {
      const session = new Session({ transport: machine.bridge, clock });
      const { nonce, adopt } = newIdentity({ clock, random, runId });
      const sent = clock.now();
      const reply = await session.adopt({ nonce, ...adopt });
      assert.deepEqual(compareIdentity(adopt, reply, clock.now() - sent), []);
      const { uid, gid } = profile.kernel;
      const policy = await (await subject.template()).compile(appArmorOf(profile));
      const filter = filterOf(profile);
      const configuration: Configuration = { limits: profile.limits, argv: [], env: [], uid, gid, policy, filter };
      const facts = await session.configure(configuration, [handler]);
      assert.deepEqual(compareFacts(expectedFacts(profile, policy), facts), []);
      return session;
    }

    test('a template boots, is prepared, saved, and says what it is made of', async () => {
      await inFolder(async (folder) => {
        const spec = await subject.spec(folder);
        const { scratchBytes } = profile.limits;
        const prepare = { ...subject.runtime, uid: workloadId, gid: workloadId, scratchBytes };
        let warm: boolean | undefined;
        const policy = (features: string): Promise<Buffer> => subject.compile(templatePolicyText, features);
        const state = await subject.vmm.buildTemplate(spec, async (transport) => {
          warm = (await prepareTemplate({ transport, clock, prepare, policy })).warm;
        });
        assert.equal(warm, true);
        assert.deepEqual([state.ramBytes, state.kernel], [spec.ramBytes, spec.kernel]);
        assert.ok(state.state.length > 0);
      });
    });

    test('a template whose preparation fails rejects with that failure', async () => {
      await inFolder(async (folder) => {
        const building = subject.vmm.buildTemplate(await subject.spec(folder), async () => {
          throw new MayflyError('E_TEMPLATE_BUILD', 'not ready on purpose');
        });
        await assert.rejects(building, /not ready on purpose/);
      });
    });

    test('a clone proves to be unique, proves its profile, and answers the event', async () => {
      await withMachine(async (machine) => {
        await machine.resume();
        const session = await configured(machine);
        const context = { runId, deadlineMillis: Date.now() + 60_000, memoryBytes: 1, image: 'node' };
        const head = { handler: '/function/h.mjs' };
        const event = { specversion: '1.0', id: '1', source: '/t', type: 't', data: { n: 7 } };
        const stdin = Buffer.from(`${JSON.stringify(head)}\n${JSON.stringify(context)}\n${JSON.stringify(event)}`);
        const { output, exit } = await session.execute({ stdin, wallMillis: 60_000 });
        assert.deepEqual(JSON.parse(output.toString()), { ok: true, value: { got: { n: 7 } } });
        assert.equal(exit.oomKills, 0);
      });
    });

    test('a paused machine says nothing', async () => {
      await withMachine(async (machine) => {
        const session = new Session({ transport: machine.bridge, clock, bounds: { adoptMillisMax: 300 } });
        const { nonce, adopt } = newIdentity({ clock, random, runId });
        await assert.rejects(session.adopt({ nonce, ...adopt }), (thrown: unknown) => {
          return thrown instanceof MayflyError && thrown.code === 'E_GUEST_SILENT';
        });
      });
    });

    test('kill ends it: exited and halted settle, the bridge is gone, and killing again is no error', async () => {
      await withMachine(async (machine) => {
        await machine.resume();
        await machine.kill();
        assert.equal((await machine.exited).signal, 'SIGKILL');
        assert.notEqual(await machine.halted, '');
        assert.equal(machine.bridge.destroyed, true);
        await machine.kill();
      });
    });

    test('a clone that dies in the middle is told as that', async () => {
      await withMachine(async (machine) => {
        await machine.resume();
        const session = await configured(machine);
        const execution = session.execute({ stdin: Buffer.from('{}'), wallMillis: 60_000 });
        const killed = machine.kill();
        const died = (thrown: unknown): boolean => thrown instanceof MayflyError && thrown.code === 'E_GUEST_DIED';
        await assert.rejects(execution, died);
        await killed;
      });
    });

    test('machines of one template have identities of their own', async () => {
      await withMachine(async (one) => {
        await withMachine(async (other) => {
          assert.notDeepEqual(one.identity, other.identity);
        });
      });
    });
  });
}
