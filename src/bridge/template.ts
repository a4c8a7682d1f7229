/** The host's side of a template's bridge: HELLO, PREPARE, READY. No customer's byte has reached the guest yet. */
import type { Duplex } from 'node:stream';
import { MayflyError } from '../core/errors.ts';
import { printableLine } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import type { Clock } from '../core/time.ts';
import { ProtocolError } from './frame.ts';
import type { Frame } from './frame.ts';
import { Link } from './link.ts';
import type { Bounds, BridgeFailure, LinkBounds } from './link.ts';
import { decodeMessage, encodeMessage, messages } from './message.ts';
import type { Message } from './message.ts';

const PROTOCOL = 1;

type Hello = Message<'HELLO'>;

export interface PrepareOptions {
  readonly transport: Duplex;
  readonly clock: Clock;
  readonly prepare: Omit<Message<'PREPARE'>, 'policy'>;
  /** What the runtime warms up under, compiled for what the guest's kernel says it can enforce. */
  readonly policy: (features: string) => Promise<Buffer>;
  /** For tests; production has core/limits.ts. */
  readonly bounds?: Partial<LinkBounds & Bounds<'bootMillisMax' | 'warmMillisMax'>>;
}

/**
 * Resolves when the guest is ready to be stopped and saved; the transport is then paused and still open. Rejects with
 * E_TEMPLATE_BUILD and what went wrong.
 */
export function prepareTemplate({ transport, clock, prepare, policy, bounds = {} }: PrepareOptions): Promise<Prepared> {
  const allBounds = { ...limits, ...bounds };
  const { bootMillisMax, warmMillisMax } = allBounds;
  const { promise, resolve, reject } = Promise.withResolvers<Prepared>();
  promise.catch(() => {});
  let hello: Hello | undefined;
  let cancel = (): void => {};
  const onFailure = ({ reason }: BridgeFailure): void => fail(reason);
  const link = new Link({ transport, clock, side: 'host', bounds: allBounds, onFrame, onFailure });

  function onFrame({ type, stream, payload }: Frame): void {
    const message = stream === 0 ? decodeMessage(type, payload) : undefined;
    if (message?.name === 'FAULT') {
      const { code, message: said } = message.fields;
      return fail(`the agent reports ${printableLine(code, 60)}: ${printableLine(said, 300)}`);
    }
    if (message?.name === 'HELLO' && hello === undefined) return onHello(message.fields);
    if (message?.name === 'READY' && hello !== undefined) return onReady(hello, message.fields.warm === 1);
    throw new ProtocolError('order', `a frame of type ${type} while the template waits for ${awaited()}`);
  }

  function onHello(fields: Hello): void {
    if (fields.protocol !== PROTOCOL) {
      const spoken = `version ${fields.protocol} of the bridge`;
      throw new ProtocolError('protocol-version', `the agent speaks ${spoken}, not ${PROTOCOL}`);
    }
    hello = fields;
    cancel();
    cancel = clock.after(warmMillisMax, () => fail(`no READY within ${warmMillisMax} ms`));
    if (fields.policyFeatures === '') return fail('its kernel has no AppArmor');
    policy(fields.policyFeatures).then(
      (compiled) => link.send(messages.PREPARE.type, 0, encodeMessage('PREPARE', { ...prepare, policy: compiled })),
      (thrown: unknown) => fail(thrown instanceof Error ? thrown.message : String(thrown)),
    );
  }

  function onReady(greeting: Hello, warm: boolean): void {
    cancel();
    link.stop();
    resolve({ hello: greeting, warm });
  }

  function awaited(): string {
    return hello === undefined ? 'HELLO' : 'READY';
  }

  function fail(reason: string): void {
    cancel();
    link.stop();
    reject(new MayflyError('E_TEMPLATE_BUILD', `the template did not become ready: ${reason}`));
  }

  cancel = clock.after(bootMillisMax, () => fail(`no HELLO within ${bootMillisMax} ms`));
  link.start();
  return promise;
}

export interface Prepared {
  readonly hello: Hello;
  /** A language runtime waits inside. */
  readonly warm: boolean;
}

