/** The broker's real network: a resolver that asks the host's servers and nothing else, and sockets. */
import { Resolver } from 'node:dns/promises';
import { connect } from 'node:net';
import { limits } from '../core/limits.ts';
import type { Network } from './broker.ts';

/** `resolvers` as in `127.0.0.1:5353`; absent: those of the host. The host's own file of names is not consulted. */
export function realNetwork(resolvers?: readonly string[]): Network {
  const resolver = new Resolver({ timeout: limits.resolveMillisMax / 2, tries: 2 });
  if (resolvers !== undefined) resolver.setServers([...resolvers]);
  return {
    async resolve(name) {
      const [four, six] = await Promise.allSettled([resolver.resolve4(name), resolver.resolve6(name)]);
      const found = [four, six].flatMap((each) => (each.status === 'fulfilled' ? each.value : []));
      if (found.length === 0) throw four.status === 'rejected' ? four.reason : new Error('no address');
      return found;
    },
    dial: (address, port) => connect({ host: address, port, allowHalfOpen: true, noDelay: true }),
  };
}

/** As in `127.0.0.1:5353,192.0.2.53`; undefined for the host's own. */
export function resolversOf(text: string | undefined): readonly string[] | undefined {
  const servers = (text ?? '').split(',').filter((server) => server !== '');
  return servers.length === 0 ? undefined : servers;
}
