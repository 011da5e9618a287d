// An identity provider for the tests in a browser: the npm package oidc-provider, with one public client.

import { once } from "node:events";
import { createServer } from "node:http";

import Provider from "oidc-provider";

export const AUDIENCE = "https://tunnel.example.com";
export const CLIENT = "tunnel-web";

/** Starts one. Anybody may sign in, by any name, and is known by it. */
export async function provider() {
    const server = createServer();
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const issuer = `http://localhost:${server.address().port}`;
    const resource = { scope: "", audience: AUDIENCE, accessTokenFormat: "jwt", accessTokenTTL: 300, jwt: { sign: { alg: "RS256" } } };
    const oidc = new Provider(issuer, {
        clients: [{
            client_id: CLIENT,
            token_endpoint_auth_method: "none",
            redirect_uris: ["https://localhost/app/"],
            grant_types: ["authorization_code", "refresh_token"],
        }],
        clientBasedCORS: () => true,
        cookies: { keys: ["of a test"] },
        issueRefreshToken: () => true,
        features: { resourceIndicators: { enabled: true, getResourceServerInfo: () => resource, useGrantedResource: () => true } },
    });
    oidc.Client.prototype.redirectUriAllowed = (uri) => uri.endsWith("/app/"); // the server's port is not known yet
    const asked = []; // the grant types at the token endpoint
    oidc.on("grant.success", ({ oidc }) => asked.push(oidc.params.grant_type));
    server.on("request", oidc.callback());
    return { issuer, asked, stop: () => (server.closeAllConnections(), server.close()) };
}
