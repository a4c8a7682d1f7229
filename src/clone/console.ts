/** The end of a VM's console, as it stands below the message of an error. */
import { limits } from '../core/limits.ts';

/** Nothing when there is nothing to show, so that it can be spread into an error's options. */
export function consoleDetail(tail: string): { readonly detail?: string } {
  const lines = tail.split('\n').slice(-limits.consoleLinesShown).join('\n');
  return lines === '' ? {} : { detail: `Last lines of the VM's console:\n${lines}` };
}
