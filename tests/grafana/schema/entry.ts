// What the schema is derived from: the dashboard that we may write, in the types of @grafana/schema.
// Those leave a panel's options and its own field configuration open, as they depend on the panel's
// kind; here they are the kind's own. See derive.sh.
import type * as kinds from '@grafana/schema/dist/esm/raw/dashboard/x/dashboard_types.gen';
import type { DataQuery } from '@grafana/schema/dist/esm/common/common.gen';
import type {
  FieldConfig as TimeSeriesFieldConfig,
  Options as TimeSeriesOptions,
} from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';
import type {
  FieldConfig as HeatmapFieldConfig,
  Options as HeatmapOptions,
} from '@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen';
import type { Options as StatOptions } from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';

// The Prometheus plugin's own types are not part of @grafana/schema: its query by hand.
type PrometheusQuery = Omit<DataQuery, 'datasource'> & {
  datasource: kinds.DataSourceRef;
  expr: string;
  legendFormat: string;
  range: boolean;
  instant?: boolean;
  format?: 'heatmap';
};

// And what it reads of an annotation.
type PrometheusAnnotation = kinds.AnnotationQuery & {
  expr: string;
  titleFormat: string;
  step: string;
};

type PanelOf<Type extends string, Options, Custom> = Omit<
  kinds.Panel,
  'type' | 'options' | 'fieldConfig' | 'targets' | 'title' | 'description' | 'datasource'
> & {
  type: Type;
  title: string;
  description: string;
  datasource: kinds.DataSourceRef;
  targets: Array<PrometheusQuery>;
  // A plugin fills in what is left out.
  options: Partial<Options>;
  fieldConfig: Omit<kinds.FieldConfigSource, 'defaults'> & {
    defaults: Omit<kinds.FieldConfig, 'custom'> & { custom?: Custom };
  };
};

type Panel =
  | PanelOf<'timeseries', TimeSeriesOptions, TimeSeriesFieldConfig>
  | PanelOf<'heatmap', HeatmapOptions, HeatmapFieldConfig>
  | PanelOf<'stat', StatOptions, Record<string, never>>;

export type Dashboard = Omit<kinds.Dashboard, 'panels' | 'annotations'> & {
  annotations: { list: Array<PrometheusAnnotation> };
  panels: Array<(Omit<kinds.RowPanel, 'panels'> & { panels: Array<Panel> }) | Panel>;
};
