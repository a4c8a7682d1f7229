/**
 * Goal: in every state, every frame that does not belong there ends the session with a violation, and those that do
 * belong do not.
 * Method: the full matrix of states and guest frames.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  adopted, adoptedRig, assertFailed, configuration, executingRig, exit, facts, freshRig, identity, provedRig, settle,
} from './rig.ts';
import type { Rig, ScriptedGuest } from './rig.ts';

const states: Readonly<Record<string, () => Promise<Rig>>> = {
  fresh: async () => {
    const rig = freshRig();
    // Nothing has been agreed: whatever comes carries a nonce that the host has not given yet.
    rig.guest.nonce = 0n;
    return rig;
  },
  adopting: async () => {
    const rig = freshRig();
    void rig.session.adopt(identity);
    return rig;
  },
  adopted: () => adoptedRig(),
  configuring: async () => {
    const rig = await adoptedRig();
    void rig.session.configure(configuration, []);
    return rig;
  },
  'sending code': async () => {
    const rig = await adoptedRig();
    const content = Buffer.alloc(300_000);
    void rig.session.configure(configuration, [{ kind: 'file', path: 'f', mode: 0o644, content }]);
    return rig;
  },
  proved: () => provedRig(),
  executing: () => executingRig(),
};

const frames: Readonly<Record<string, (guest: ScriptedGuest) => void>> = {
  HELLO: (guest) => guest.say('HELLO', {
    protocol: 1, agentVersion: '', kernelRelease: '', memoryBytes: 0, policyFeatures: '',
  }),
  READY: (guest) => guest.say('READY', { warm: 1 }),
  ADOPTED: (guest) => guest.say('ADOPTED', adopted),
  PROOF: (guest) => guest.say('PROOF', { fact: facts }),
  EXIT: (guest) => guest.say('EXIT', exit),
  FAULT: (guest) => guest.say('FAULT', { code: 'E_CLONE_FAILED', message: 'no' }),
  'DATA stdout': (guest) => guest.data('stdout', 'x'),
  'DATA output': (guest) => guest.data('output', 'x'),
  'END stderr': (guest) => guest.end('stderr', 0),
  'CREDIT stdin': (guest) => guest.credit('stdin', 1),
  'CREDIT code': (guest) => guest.credit('code', 1),
};

/** What is allowed, and the state that it leads to. FAULT is told apart below. */
const allowed: Readonly<Record<string, string>> = {
  'adopting ADOPTED': 'adopted',
  'configuring PROOF': 'proved',
  'sending code CREDIT code': 'configuring',
  'executing DATA stdout': 'executing',
  'executing DATA output': 'executing',
  'executing END stderr': 'executing',
  'executing CREDIT stdin': 'executing',
};

for (const [state, reach] of Object.entries(states)) {
  for (const [name, send] of Object.entries(frames)) {
    const next = allowed[`${state} ${name}`];
    const faulty = name === 'FAULT' && ['adopting', 'configuring', 'sending code'].includes(state);
    test(`${state}, then ${name}: ${next ?? (faulty ? 'a fault' : 'a violation')}`, async () => {
      const rig = await reach();
      send(rig.guest);
      if (next !== undefined) {
        await settle();
        assert.equal(rig.session.status.state, next);
      } else if (faulty) await assertFailed(rig, { code: 'E_CLONE_FAILED', reason: /^the guest reports: no$/ });
      else {
        // Credit for code that was never sent is refused by its amount rather than by the state.
        const violation = state === 'configuring' && name === 'CREDIT code' ? 'credit' : 'order';
        await assertFailed(rig, { code: 'E_GUEST_PROTOCOL', violation });
      }
    });
  }
}

test('a fault after START may only blame the function', async () => {
  const load = await executingRig();
  load.guest.say('FAULT', { code: 'E_FUNCTION_LOAD', message: 'execve: No such file' });
  await assertFailed(load, { code: 'E_FUNCTION_LOAD' });
  const hostOnly = ['E_CLONE_FAILED', 'E_CLONE_NOT_UNIQUE', 'E_INTERNAL', 'E_FUNCTION_TIMEOUT'];
  for (const code of [...hostOnly, '', '__proto__', 'toString']) {
    const rig = await executingRig();
    rig.guest.say('FAULT', { code, message: 'not me' });
    await assertFailed(rig, { code: 'E_GUEST_PROTOCOL', violation: 'order', reason: /not me/ });
  }
});

test('text of a fault is short and printable in the status', async () => {
  const rig = await executingRig();
  const message = `\x1b]0;title\x07\u202e${'m'.repeat(20_000)}`;
  rig.guest.say('FAULT', { code: `\x1b[2J${'c'.repeat(10_000)}`, message });
  const { reason } = await assertFailed(rig, { code: 'E_GUEST_PROTOCOL' });
  assert.ok(reason.length < 600);
  assert.doesNotMatch(reason, /[\u0000-\u001f\u007f-\u009f\u202e]/);
});
