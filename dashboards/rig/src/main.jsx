// Draws one dashboard. The address has its parameters: dashboard (URL of the JSON), prometheus (URL), now (Unix
// seconds), scrapeInterval, theme, expand (expands all rows), and Grafana's from, to and var-NAME.
import 'react-grid-layout/css/styles.css';
import 'uplot/dist/uPlot.min.css';
import './page.css';

import { ThemeContext } from '@grafana/data';
import { sceneGraph } from '@grafana/scenes';
import { GlobalStyles, LinkButton, PortalContainer } from '@grafana/ui';
import { useEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { Page } from 'version';

import { setUp } from './grafana';
import { measure } from './measure';
import { createPlugins } from './panels';
import { createScene } from './scene';
import { whenSettled } from './settled';

/** What Grafana shows above a dashboard: its title, and the links with the selected values. */
function Head({ dashboard, scene, theme }) {
  const [links, setLinks] = useState([]);
  useEffect(() => {
    const update = () =>
      setLinks(
        dashboard.links.map(({ title, tooltip, url }) => ({
          title,
          tooltip,
          href: sceneGraph.interpolate(scene, url ?? ''),
        })),
      );
    const subscriptions = sceneGraph.getVariables(scene).state.variables.map((each) => each.subscribeToState(update));
    update();
    return () => subscriptions.forEach((each) => each.unsubscribe());
  }, [dashboard, scene]);
  return (
    <div className="rig-head" style={{ color: theme.colors.text.secondary }}>
      <span>
        Dashboards › <b style={{ color: theme.colors.text.primary }}>{dashboard.title}</b>
      </span>
      <span className="rig-links">
        {links.map(({ title, tooltip, href }) => (
          <LinkButton key={title} icon="external-link-alt" variant="secondary" size="sm" href={href} tooltip={tooltip}>
            {title}
          </LinkButton>
        ))}
      </span>
    </div>
  );
}

/** Its children, after the fonts are loaded: Grafana's components measure texts when they are drawn. */
function AfterFonts({ children }) {
  const [loaded, setLoaded] = useState(false);
  useEffect(() => {
    Promise.all([400, 500].map((weight) => document.fonts.load(`${weight} 14px Inter`))).then(() => setLoaded(true));
  }, []);
  return loaded && children;
}

async function draw() {
  const parameters = new URLSearchParams(location.search);
  const theme = setUp({
    mode: parameters.get('theme'),
    prometheusUrl: parameters.get('prometheus'),
    scrapeInterval: parameters.get('scrapeInterval'),
    plugins: createPlugins(),
  });
  const dashboard = await (await fetch(parameters.get('dashboard'))).json();
  const scene = createScene(dashboard, parameters);
  createRoot(document.getElementById('root')).render(
    <ThemeContext.Provider value={theme}>
      <Page>
        <GlobalStyles hackNoBackdropBlur isExtensionSidebarOpen={false} />
        <PortalContainer />
        <AfterFonts>
          <div className="rig-page" style={{ background: theme.colors.background.canvas }}>
            <Head dashboard={dashboard} scene={scene} theme={theme} />
            <div className="rig-dashboard">
              <scene.Component model={scene} />
            </div>
          </div>
        </AfterFonts>
      </Page>
    </ThemeContext.Provider>,
  );
  return scene;
}

const drawn = draw();
/** For tests/dashboards/rig.py: waits until nothing changes any more, and returns what the checks need. */
window.rig = async () => {
  const scene = await drawn;
  await whenSettled();
  return measure(scene);
};
