/** Takes a webhook and says what it would do with it. */
export default async ({ data }) => ({ accepted: true, action: data.action, repository: data.repository });
