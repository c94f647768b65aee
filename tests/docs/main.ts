/** `deno task docs`: writes the pages that are made from the code. */

import { CONFIGURATION_PAGE, configurationPage } from "./configuration.ts";

Deno.writeTextFileSync(CONFIGURATION_PAGE, await configurationPage());
