/** Destinations that rules allow or deny, as in `mayfly run --network`; parsed by the one parser of policies. */
import { MayflyError } from '../core/errors.ts';
import { isObject } from '../core/json.ts';
import { parseNetworkFile } from '../egress/parse.ts';
import type { NetworkRule } from '../profile/network.ts';

/** `value`: `api.example.com:443`, or an object with `to` and perhaps `cidr`, `ports`, `private`. */
export function parseDestination(
  action: 'allow' | 'deny',
  value: unknown,
): NetworkRule | { readonly problem: string } {
  const { to, ...more } = isObject(value) ? value : { to: value };
  try {
    const [rule] = parseNetworkFile(JSON.stringify({ rules: [{ [action]: to, ...more }] })).rules;
    return rule ?? { problem: 'it names nothing' };
  } catch (thrown) {
    if (!(thrown instanceof MayflyError)) throw thrown;
    return { problem: thrown.message.replace('The network policy cannot be used: rule 1', 'it') };
  }
}

/** Whether whatever the one names is named by the other as well; ports aside. */
export function covers(deny: NetworkRule, allow: NetworkRule): boolean {
  if (deny.ports !== undefined) return false;
  if (deny.cidr !== undefined) return deny.host === undefined && deny.cidr === allow.cidr;
  if (deny.host === '*') return allow.host !== undefined;
  if (deny.host?.startsWith('*.') === true) return allow.host?.endsWith(deny.host.slice(1)) === true;
  return deny.host !== undefined && deny.host === allow.host;
}
