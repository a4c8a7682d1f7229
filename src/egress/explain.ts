/** The policy's verdict on a URL, without a run: the same decision that the broker makes, in the same words. */
import { MayflyError } from '../core/errors.ts';
import { printableLine } from '../core/json.ts';
import { noNetwork } from '../profile/network.ts';
import type { NetworkPolicy } from '../profile/network.ts';
import { parseHost } from './host.ts';
import { decide } from './policy.ts';
import type { Decision } from './policy.ts';

const PORTS: ReadonlyMap<string, number> = new Map([
  ['http', 80], ['https', 443], ['postgresql', 5432], ['postgres', 5432],
]);

/** Scheme, perhaps a user, host, perhaps a port, and whatever follows: URL's own reading accepts too much. */
const URL_FORM = /^([a-z][a-z0-9+.-]*):\/\/(?:[^/?#@]*@)?(\[[^\]]*\]|[^:/?#]*)(?::(\d{1,5}))?(?:[/?#].*)?$/is;

/** Throws E_USAGE. `resolved`: the address that the URL's name leads to. */
export function explainConnection(policy: NetworkPolicy = noNetwork, url: string, resolved?: string): Decision {
  const [, scheme = '', host = '', port] = URL_FORM.exec(url) ?? [];
  const parsed = parseHost(host);
  if (parsed === undefined) throw unusable(`${JSON.stringify(printableLine(url, 200))} names no host`);
  const number = port === undefined ? PORTS.get(scheme.toLowerCase()) : Number(port);
  if (number === undefined || number < 1 || number > 65_535) throw unusable('the URL needs a port from 1 to 65535');
  if (parsed.kind === 'address') return decide(policy, { name: undefined, address: parsed.address, port: number });
  const address = resolved === undefined ? undefined : parseHost(resolved);
  if (address?.kind === 'name') throw unusable('--address must be an address');
  return decide(policy, { name: parsed.name, address: address?.address, port: number });
}

function unusable(message: string): MayflyError {
  return new MayflyError('E_USAGE', message);
}
